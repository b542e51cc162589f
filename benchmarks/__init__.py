"""structjob compared with its peers. ``python -m benchmarks`` measures and prints the table of
``benchmarks/README.md``.

Each ``b*.py`` is one benchmark and registers itself with a module-level ``BENCHMARK``. To add a
benchmark, add a file. Every measurement runs in its own process, each round runs all cases in turn,
and the result is the median of the rounds' ratios.
"""
