"""structjob beside its peers: ``python -m benchmarks`` measures and prints the table of
``benchmarks/README.md``.

Each ``b*.py`` is one benchmark and registers itself with a module-level ``BENCHMARK``; to add one
is to add one file. Every measurement runs in a process of its own, rounds go round the cases in
turn, and what counts is the median of the rounds' ratios.
"""
