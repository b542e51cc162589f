"""The process that measures one case: ``python -m benchmarks.child BENCHMARK CASE KEYWORDS
RESULT``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import registry


def main(name: str, case: str, keywords: str, result: str) -> None:
    """Run one case and write its measurements to the file *result*."""
    measured = registry.benchmark(name).case(case).run(**json.loads(keywords))
    Path(result).write_text(json.dumps(dict(measured)))


if __name__ == "__main__":
    main(*sys.argv[1:])
