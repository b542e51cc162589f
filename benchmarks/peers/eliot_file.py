"""eliot: actions within actions, as JSON lines in a file."""

from __future__ import annotations

from time import perf_counter

from eliot import log_message, start_action, to_file

from benchmarks import payload


def jobs(path: str, count: int, steps: int, lines: int) -> list[float]:
    """Log *count* jobs to the file *path*; return the seconds that each took.

    eliot flushes the file after every line.
    """
    took = []
    with open(path, "ab") as file:
        to_file(file)
        for _ in range(count):
            start = perf_counter()
            with start_action(action_type=payload.JOB, correlation_id=payload.CORRELATION_ID):
                for number in range(steps):
                    with start_action(action_type=f"{payload.STEP}-{number}"):
                        for line in range(lines):
                            log_message(
                                payload.MESSAGE, **payload.attributes(payload.TRANSFERRED + line)
                            )
            took.append(perf_counter() - start)
    return took
