"""What remains of errors whose events were pruned: their count, and the times of first and last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, case, insert, literal, select, update

from structjob.store.tables import errors


def type_of(attrs: Mapping[str, Any], level: str) -> str:
    """Return the type of an error, given the attributes and the level of an occurrence."""
    given = attrs.get("error_type")
    return given if isinstance(given, str) and given else level


def count_pruned(connection: Connection, rows: Sequence[Mapping[Any, Any]]) -> None:
    """Count the errors among the *rows* that are deleted.

    Args:
        connection: A connection in a transaction.
        rows: The deleted events with ``fingerprint``, ``ts``, ``level``, ``message`` and ``attrs``.
    """
    found: dict[str, list[Mapping[Any, Any]]] = defaultdict(list)
    for row in rows:
        if row["fingerprint"] is not None:
            found[row["fingerprint"]].append(row)
    if not found:
        return
    of_these = (
        select(errors)
        .where(errors.c.fingerprint.in_(sorted(found)))
        .order_by(errors.c.fingerprint)
        .with_for_update()
    )
    known = {row["fingerprint"]: row for row in connection.execute(of_these).mappings()}
    for fingerprint, several in sorted(found.items()):
        times = [row["ts"] for row in several]
        before = known.get(fingerprint)
        seen = () if before is None else (before["first_seen"], before["last_seen"])
        times += [moment for moment in seen if moment is not None]
        values: dict[str, Any] = {
            "pruned": len(several) + (0 if before is None else before["pruned"]),
            "first_seen": min(times),
            "last_seen": max(times),
        }
        if before is None:
            latest = max(several, key=lambda row: row["ts"])
            attrs = latest["attrs"] if isinstance(latest["attrs"], dict) else {}
            values["error_type"] = type_of(attrs, latest["level"])[:200]
            values["message"] = str(attrs.get("error_message") or latest["message"])
            connection.execute(insert(errors).values(fingerprint=fingerprint, **values))
        else:
            mine = errors.c.fingerprint == fingerprint
            connection.execute(update(errors).where(mine).values(values))


def count_restored(connection: Connection, occurrences: Mapping[str, int]) -> None:
    """Reduce the count of pruned events by those that an import has restored.

    Args:
        connection: A connection in a transaction.
        occurrences: Fingerprint → number of restored events.
    """
    for fingerprint, number in sorted(occurrences.items()):
        left = case((errors.c.pruned > number, errors.c.pruned - number), else_=literal(0))
        connection.execute(
            update(errors).where(errors.c.fingerprint == fingerprint).values(pruned=left)
        )
