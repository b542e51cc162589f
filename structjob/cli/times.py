"""Times as people write and read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

import click

from structjob.text.appearance import local
from structjob.text.spans import span, units

_CLOCK = re.compile(r"\d\d?:\d\d(:\d\d)?")


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """Parse a time on the command line.

    Accepts an age (``-3h``, ``2d``, ``1h30m``), ISO 8601, a time of today, ``today`` and
    ``yesterday``.
    """
    if value is None:
        return None
    text = value.strip()
    utc = bool(ctx.params.get("utc"))
    try:
        if (ago := span(text)) is not None:
            return datetime.now(UTC) - ago
        if text in ("today", "yesterday"):
            return midnight(datetime.now(UTC), utc=utc, days_before=int(text == "yesterday"))
        if _CLOCK.fullmatch(text):
            text = f"{local(datetime.now(UTC), utc=utc):%Y-%m-%d}T{text.zfill(5 if text.count(':') == 1 else 8)}"
        return in_utc(datetime.fromisoformat(text), utc=utc)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is not a time: write an age (3h, 2d, 1h30m), today, yesterday, a date (2026-05-04), or a time (13:30, 2026-05-04T13:30)",
            ctx,
            param,
        ) from None


def stretch(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Parse a duration on the command line: ``15m``, ``1h30m``, ``7d``."""
    if value is None:
        return None
    found = span(value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is not a duration: write 15m, 1h or 7d", ctx, param)
    return found


def age(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Parse an age on the command line: ``30d``, ``2w``, ``6mo`` (of 30 days), ``1y`` (365 days).

    ``6m`` is refused because it is ambiguous.
    """
    if value is None:
        return None
    text = value.strip()
    if "m" in units(text):
        raise click.BadParameter(
            f"{value!r} could mean months or minutes: write mo for months, min for minutes",
            ctx,
            param,
        )
    found = None if text.startswith("-") else span(text)
    if found is None:
        raise click.BadParameter(
            f"{value!r} is not an age: write 12h, 30d, 2w, 6mo or 1y", ctx, param
        )
    return found


def midnight(moment: datetime, *, utc: bool, days_before: int = 0) -> datetime:
    """Return when the day of *moment*, or one *days_before* it, began in the displayed time
    zone.
    """
    day = local(moment, utc=utc).date() - timedelta(days=days_before)
    # Hours are not counted back from the moment, because a day on which clocks change does not have
    # 24 of them.
    return in_utc(datetime.combine(day, time()), utc=utc)


def in_utc(moment: datetime, *, utc: bool) -> datetime:
    """Return *moment* in UTC. Without a time zone, it is a time of the displayed one."""
    if moment.tzinfo is not None or not utc:
        try:
            return moment.astimezone(UTC)
        except ValueError:
            if moment.tzinfo is not None:
                raise
            # the local time zone is impossible, and UTC is displayed instead
    return moment.replace(tzinfo=UTC)


def full(moment: datetime | None, *, utc: bool) -> str:
    """Return date and time, with the zone."""
    if moment is None:
        return ""
    shown = local(moment, utc=utc)
    return f"{shown:%Y-%m-%d %H:%M:%S} {'UTC' if utc else shown.tzname() or ''}".rstrip()


def brief(moment: datetime | None, *, utc: bool, now: datetime | None = None) -> str:
    """Return the time for today's moments, else date and time."""
    if moment is None:
        return ""
    shown = local(moment, utc=utc)
    today = local(now or datetime.now(UTC), utc=utc).date()
    return f"{shown:%H:%M:%S}" if shown.date() == today else f"{shown:%Y-%m-%d %H:%M}"
