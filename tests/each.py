"""A test of many cases that need no fixtures of their own."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest


def each(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[..., Any]:
    """Run a test for each of *cases*, as `pytest.mark.parametrize` does, but as one test.

    The cases share the fixtures of the test: a tracker, a database, a directory. Setting these up
    takes most of the time of a short test. All cases run, and a failure names those that failed.

    Args:
        names: The argument of the test that a case gives, or several as a tuple.
        cases: A value for each case, or a tuple of values if there are several names.
    """
    keys = (names,) if isinstance(names, str) else names
    given = [
        dict(zip(keys, (case,) if isinstance(names, str) else case, strict=True)) for case in cases
    ]

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(test)
        assert given

        if inspect.iscoroutinefunction(test):

            @functools.wraps(test)
            async def run(**fixtures: Any) -> None:
                failed: list[BaseException] = []
                for case in given:
                    with _kept(failed, case):
                        await test(**fixtures, **case)
                _report(failed)

        else:

            @functools.wraps(test)
            def run(**fixtures: Any) -> None:
                failed: list[BaseException] = []
                for case in given:
                    with _kept(failed, case):
                        test(**fixtures, **case)
                _report(failed)

        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[one for name, one in signature.parameters.items() if name not in keys]
        )
        return run

    return decorate


@contextlib.contextmanager
def _kept(failed: list[BaseException], case: dict[str, Any]) -> Iterator[None]:
    """Add a failure to *failed*, with a note of its *case*."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as exc:
        exc.add_note(f"of the case {case!r:.300}")
        failed.append(exc)


def _report(failed: list[BaseException]) -> None:
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise BaseExceptionGroup("several cases fail", failed)
