"""Parts of the engine on their own: a site holds one of them, and all that it works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def sites(kind: Callable[..., Any], directory: Path) -> Iterator[Callable[..., Any]]:
    """Yield a function that makes a site of this *kind*: in memory, or in *directory* if a name is
    given. Close their recorders and spools at the end.
    """
    made = []

    def new(name: str | None = None, **options: Any) -> Any:
        made.append(kind(directory / name if name else None, **options))
        return made[-1]

    yield new
    for site in made:
        site.recorder.close()
        if site.recorder.spool is not None:
            site.recorder.spool.close()
