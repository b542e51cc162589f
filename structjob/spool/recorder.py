"""The way into the spool: an event or a change of state becomes one safe, numbered line.

Everything here may be called from any thread, a signal handler or ``__del__``, and may be
interrupted at any point. Therefore numbers come from `itertools.count`, a line is one ``write()``,
and each counter has only one writer.
"""

from __future__ import annotations

import errno
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import get_ident
from types import FrameType
from typing import TYPE_CHECKING, Literal
from zlib import crc32

import msgspec

from structjob.diagnostics import diagnostics, fault_types
from structjob.exceptions import SpoolError
from structjob.machine.frames import frames_of_threads
from structjob.process import at_fork
from structjob.spool.dropped import Dropped, taken_runs
from structjob.spool.fault_log import FAULT_LOG
from structjob.spool.kept import KeptEvents
from structjob.spool.line import NUMBER, SEAL, Row, marked_late, seal_event, seal_state, state_body
from structjob.spool.numbers import Numbers
from structjob.spool.places import Places
from structjob.spool.queue import MemoryQueue, Overflow, RecordQueue
from structjob.spool.routing import hand_over, remove

if TYPE_CHECKING:
    from structjob.spool.directory import SessionSpool
    from structjob.spool.session import Session
    from structjob.spool.tally import Tally

_ACCOUNT_EVERY = 0.25
"""Seconds between two accounts of dropped events in a process that does not deliver."""


class Recorder:
    """Takes the events and changes of state of one session.

    Args:
        session: The session.
        places: Where its spool may be, or the directory itself; ``None`` to keep everything in
            memory.
        level: Number of the lowest level to record.
        queue_size: Maximum number of events in memory: without a spool, and while the disk refuses
            writes.
        max_bytes: Maximum bytes of the event queue on disk; None means no limit.
        overflow: What happens beyond that.
        fallbacks: Whether the spool may also be in the fallbacks of its places.
        deliver: Whether this process delivers what is recorded; True by default. Otherwise another
            process delivers the spool.
        project: The project of events that have no project of their own.
    """

    # What `put` reads. Python keeps at most 30 attributes of an object in a form that it reads
    # quickly, and this class has more.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_append",
        "_counter",
        "_thread",
        "closed",
        "idle",
        "level",
    )

    def __init__(
        self,
        session: Session,
        places: Places | Path | None,
        *,
        level: int,
        queue_size: int,
        max_bytes: int | None,
        overflow: Overflow,
        fallbacks: bool,
        deliver: bool = True,
        project: str | None = None,
    ) -> None:
        self.level = level
        self.project = project
        self.session = session
        self.queue_size = queue_size
        self.closed = False
        self.forked = False
        """Whether this is a forked child without an engine: its parent delivers what it writes."""
        self.delivers = deliver
        """Whether an engine in this process delivers what is recorded."""
        self.kept: KeptEvents | None = None
        """Keeps events below the level until their job ends."""
        self.idle = False
        self.wake: Callable[[], None] = _nothing
        self._accounted = 0.0
        self._max_bytes = max_bytes
        self._overflow = overflow
        self._warned: dict[str, float] = {}
        from structjob.spool.directory import (
            SessionSpool,  # imported late: a program that only logs never needs it
        )

        self.places = Places(session.database, (places,)) if isinstance(places, Path) else places
        spool = None
        if self.places is not None:
            spool = SessionSpool.create_first(
                self.places,
                session,
                max_bytes=max_bytes,
                overflow=overflow,
                fallbacks=fallbacks,
                deliver=deliver,
            )
        self.root = spool.directory.parent if spool is not None else None
        """The directory of spools that contains this one."""
        self._begin(spool)
        if spool is not None:
            FAULT_LOG.add(spool.directory)
        _recorders.add(self)

    def _begin(self, spool: SessionSpool | None) -> None:
        self.spool = spool
        self.numbers = Numbers()
        self.state_numbers = Numbers()
        self.rejected = Numbers()
        """Counts the events that were refused and have no number."""
        self.broken_off = Numbers()
        """Counts the calls that an exception ended at an unknown point.

        It is unknown whether the line was written or a number taken.
        """
        self._threads: set[int] = set()
        self._thread = 0
        """The thread that logged last.

        Threads switch every few milliseconds, so it is usually the same one.
        """
        self._together: dict[object, int] = {}
        """How many numbers each running call of `put_all` needs."""
        self.lost: deque[Dropped] = deque()
        """Numbers that were given out and then not used: first, last, reason."""
        self.lost_states: deque[int] = deque()
        """Numbers of changes of state that were given out and not used.

        No caller needs to wait for them.
        """
        self.fallback = MemoryQueue(self.queue_size, self._overflow, "disk_refused")
        """Where events wait while the disk refuses them."""
        self.fallback_states = MemoryQueue()
        self.events: RecordQueue = (
            spool.events if spool is not None else MemoryQueue(self.queue_size, self._overflow)
        )
        self.states: RecordQueue = spool.states if spool is not None else MemoryQueue()
        self._counter = self.numbers.counter
        self._append = self._write = (
            self.events.append if self.delivers else self._append_undelivered
        )
        if (tally := self._tally) is not None:
            self.fallback.confirm = tally.confirm
        self._listeners: tuple[Callable[[bytes], None], ...] = ()

    @property
    def _tally(self) -> Tally | None:
        return None if self.spool is None else self.spool.tally

    @property
    def overflow(self) -> Overflow:
        """What happens to events for which there is no room."""
        return self.events.overflow

    def put(self, body: bytes, level: int) -> None:
        """Record the event whose line begins with *body*; never raise an `Exception`."""
        if level < self.level:
            if self.kept is not None:
                self.kept.keep(body)
            return
        if self.closed:
            next(self.rejected.counter)
            if self.forked:
                self._warn_forked()
            hand_over(body, level)
            return
        if get_ident() != self._thread:
            self._meet_thread()
        number = 0
        line = b""
        try:
            number = next(self._counter)
            body += NUMBER % number
            line = body + SEAL % crc32(body)  # the same as `seal_event`
            append = self._append  # Python calls what a slot holds slowly
            try:
                append(line, number)
            except OSError as exc:
                self._keep_refused(line, number, exc)
        except BaseException as exc:
            # Out of memory, or a signal handler that raises: the number is given out and must be
            # accounted for. Whether a line was written is unknown here; the end of the session
            # determines it.
            if number and not line:
                self.lost.append(Dropped(number, number, "interrupted"))
                self._risk(number)
            else:
                next(self.broken_off.counter)
            if not isinstance(exc, fault_types()):
                raise
        if self.idle:
            self.wake()

    def put_all(self, bodies: list[bytes], level: int) -> None:
        """Record events, as `put` does, in one ``write()``; never raise an `Exception`."""
        if level < self.level or self.closed or not self.delivers or len(bodies) == 1:
            for body in bodies:
                self.put(body, level)
            return
        if get_ident() != self._thread:
            self._meet_thread()
        numbers: list[int] = []
        lines: list[bytes] = []
        call = object()
        try:
            # Before the numbers are given out, because the process may be killed at any point.
            self._together[call] = len(bodies)
            self._hold()
            numbers = self.numbers.several(len(bodies))
            lines = list(map(seal_event, bodies, numbers))
            taken = self.events.append_all(lines)
            for take in self._listeners:
                for line in lines[:taken]:
                    take(line)
            for line, number in zip(lines[taken:], numbers[taken:], strict=True):
                try:
                    self._append(line, number)
                except OSError as exc:
                    self._keep_refused(line, number, exc)
        except BaseException as exc:  # see `put`
            if numbers and not lines:
                self.lost.append(Dropped(numbers[0], numbers[-1], "interrupted"))
                self._risk(numbers[-1])
            else:
                self.broken_off.several(len(bodies))
            if not isinstance(exc, fault_types()):
                raise
        finally:
            self._together.pop(call, None)
            self._hold()
        if self.idle:
            self.wake()

    def _keep_refused(self, line: bytes, number: int, exc: OSError) -> None:
        refused = self._write_again(self._write, line, number, exc)
        if refused is None:
            return
        self._disk_refused(refused)
        self.fallback.append(line, number)
        self._risk(number)  # after the event is in `fallback`: see `secure`

    def _write_again(
        self, write: Callable[[bytes, int], object], line: bytes, number: int, exc: OSError
    ) -> OSError | None:
        """Write a line that *exc* has refused, if the program had closed the spool's files and they
        are open again. Return why it is not written; None if it is.
        """
        if exc.errno != errno.EBADF or self.closed or self.spool is None or not self.spool.reopen():
            return exc
        try:
            write(line, number)
        except OSError as again:
            return again
        return None

    def end_kept(self, job_id: str, *, failed: bool) -> None:
        """Record the kept events of a job that has *failed*. Discard those of any other job."""
        kept = [] if self.kept is None else self.kept.end(job_id)
        if failed:
            for body in kept:
                self.put(marked_late(body), self.level)

    def _meet_thread(self) -> None:
        """Register one more thread that logs, in the tally, which survives this process.

        Each thread may hold a number that is not written yet when the process dies.
        """
        thread = get_ident()
        if thread not in self._threads:
            self._threads.add(thread)
            self._hold()
        self._thread = thread

    def _hold(self) -> None:
        if (tally := self._tally) is not None:
            tally.hold(len(self._threads) + sum(list(self._together.values())))

    def _risk(self, number: int) -> None:
        if (tally := self._tally) is not None:
            tally.risk(number)

    def secure(self) -> None:
        """Clear the mark in the tally when no fact about events is in memory only."""
        if (tally := self._tally) is None or not tally.at_risk or self._in_memory():
            return
        tally.mark(0)
        # another thread may have set its mark in between, and this cleared it too
        if number := self._in_memory():
            tally.mark(number)

    def _in_memory(self) -> int:
        """Return the greatest number given out if something is in memory only, otherwise 0."""
        queues = self.fallback, self.fallback_states
        uncertain = any(self.dropped_sources()) or not all(
            queue.reached(queue.position()) for queue in queues
        )
        return self.numbers.given if uncertain else 0

    def put_state(self, kind: str, describe: Callable[[], Row]) -> int:
        """Record the current state of the row that *describe* returns (columns of the table of
        *kind*).

        Returns:
            Its ``state_seq``; 0 if it was refused.
        """
        if self.closed:
            next(self.rejected.counter)
            if self.forked:
                self._warn_forked()
                return 0
            row = describe()
            columns = row if isinstance(row, dict) else msgspec.structs.asdict(row)
            self.warn(
                "closed",
                "a change of state came after the tracker was closed, and is not recorded: %s %s",
                kind,
                columns.get("id") or columns.get("job_id"),
            )
            return 0
        return self._put_state(kind, describe)

    def _put_state(self, kind: str, describe: Callable[[], Row]) -> int:
        # Take the number first. If the row were created before it, another thread could record the
        # end in between, with a smaller number, and the older row would then replace the end.
        number = next(self.state_numbers.counter)
        try:
            line = seal_state(state_body(kind, describe()), number)
            try:
                self.states.append(line, number)
            except OSError as exc:
                refused = self._write_again(self.states.append, line, number, exc)
                if refused is not None:
                    self._disk_refused(refused)
                    self.fallback_states.append(line, number)
        except BaseException:
            self.lost_states.append(number)
            raise
        if self.idle:
            self.wake()
        return number

    def add_listener(self, take: Callable[[bytes], None]) -> None:
        """Also pass each event's line to *take*, which must not raise or wait."""
        self._listeners = (*self._listeners, take)
        self._append = self._append_and_tell

    def remove_listener(self, take: Callable[[bytes], None]) -> None:
        """Undo `add_listener`."""
        self._listeners = tuple(other for other in self._listeners if other is not take)
        if not self._listeners:
            self._append = self._write

    def _append_and_tell(self, line: bytes, number: int) -> None:
        try:
            self._write(line, number)
        finally:
            for take in self._listeners:
                take(line)

    def account(self) -> list[Dropped]:
        """Record newly dropped events and their jobs in ``structjob_gaps``, through the spool.

        Returns:
            What was dropped since the last call.
        """
        drops: list[Dropped] = []
        for source in self.dropped_sources():
            for run, jobs in taken_runs(source):
                drops.append(run)
                gap = {
                    "first_seq": run.first,
                    "last_seq": run.last,
                    "reason": run.reason,
                    "jobs": jobs or None,
                }
                # Also when closed already: this is about earlier events.
                self._put_state("gap", gap.copy)
        return drops

    def dropped_sources(self) -> list[deque[Dropped]]:
        """Return the queues where dropped events are reported."""
        return [self.lost, self.events.dropped, self.fallback.dropped]

    def queues(self) -> tuple[RecordQueue, RecordQueue, RecordQueue, RecordQueue]:
        """Return the queues in the order in which they must be read.

        Changes of state come first: then the events recorded before a change arrive with it, or
        earlier.
        """
        return self.states, self.fallback_states, self.events, self.fallback

    def warn(self, about: str, message: str, *args: object, every: float = 60.0) -> None:
        """Warn on the library's own logger, at most once in *every* seconds for the same
        *about*.
        """
        now = time.monotonic()
        if now - self._warned.get(about, -every) >= every:
            self._warned[about] = now
            diagnostics.warning(message, *args)

    def _warn_forked(self) -> None:
        if self.root is None:
            self.warn(
                "forked",
                "this is a forked process, and the tracker that it was forked with has no spool by which the parent could take what is "
                "recorded here: it is not stored; open another tracker in this process, or give that one a spool",
            )

    def _disk_refused(self, exc: OSError) -> None:
        self.warn(
            "disk",
            "cannot write to the spool %s: %s; events wait in memory (at most %d)",
            self.root,
            exc.strerror or exc,
            self.queue_size,
        )

    def leave(self) -> int:
        """Move what waits in memory to the spool, where the disk had refused it.

        Events that the disk still refuses are dropped and recorded in ``structjob_gaps``. No other
        thread may use the queues any more.

        Returns:
            The number of dropped events.
        """
        self.fallback_states.move_to(self.states)
        self.fallback.move_to(self.events)
        return self.fallback.clear("disk_refused")

    def close(self) -> None:
        """Take no more events. Threads that have passed the check continue: see `quiet`."""
        self.closed = True
        remove(self)
        if self.spool is not None:
            FAULT_LOG.remove(self.spool.directory)
            self.spool.mark_closed()
            if self.forked:
                self.spool.close()

    def quiet(self) -> bool:
        """Return whether no thread is recording.

        When closed and quiet, every record that has a number is in the queues.
        """
        # This inspects the stacks, so that recording itself does not need to count the active
        # threads.
        inside = {each.__code__ for each in (Recorder.put, Recorder.put_all, Recorder.put_state)}
        for top in frames_of_threads().values():
            frame: FrameType | None = top
            while frame is not None:
                if frame.f_code in inside and frame.f_locals.get("self") is self:
                    return False
                frame = frame.f_back
        return True

    def after_fork(self) -> None:
        """Become a new session in a forked child, which has no engine.

        The parent delivers what it writes.
        """
        if self.closed:
            return
        self.forked, self.delivers = True, False
        self.wake = _nothing
        self.idle = False
        if self.spool is not None:
            # before the reference is replaced: its descriptors are shared with the parent and hold
            # the parent's locks
            self.spool.forget()
        parent, self.session = self.session, self.session.successor()
        self._begin(None)
        if self.root is None:  # no process will ever read what it keeps
            self.close()
        else:
            # Most children never log, or call exec immediately: the directory is created with the
            # first line.
            self._opening = threading.Lock()
            self.events, self.states = _FirstQueue(self, "events"), _FirstQueue(self, "states")
        diagnostics.debug(
            "forked: session %s goes on as %s", parent.session_id, self.session.session_id
        )

    def _append_undelivered(self, line: bytes, number: int) -> None:
        """Append, and also do the work of an engine, because no engine delivers here."""
        self.events.append(line, number)
        if self.events.dropped and time.monotonic() - self._accounted >= _ACCOUNT_EVERY:
            self._accounted = time.monotonic()
            self.account()
        self.catch_up()

    def take_late(self, fallback: MemoryQueue, line: bytes, number: int) -> None:
        """Take a line that came while the directory was being created."""
        fallback.append(line, number)
        self.catch_up()

    def catch_up(self) -> None:
        """Move what waits in memory to the spool, if the disk takes it now."""
        if self.spool is None:
            return
        if self.fallback.move_to(self.events):
            self.fallback_states.move_to(self.states)
        self.secure()

    def open_child(self) -> bool:
        """Create the session's directory; return ``False`` if another call is creating it.

        That call may be in another thread, or be the one that this call interrupts.
        """
        assert self.root is not None  # noqa: S101 -- set before this is called
        if not self._opening.acquire(blocking=False):
            return False
        try:
            if self.spool is None:
                from structjob.spool.directory import SessionSpool  # loaded already

                spool = SessionSpool.create(
                    self.root,
                    self.session,
                    max_bytes=self._max_bytes,
                    overflow=self._overflow,
                    deliver=False,
                )
                self.events, self.states = spool.events, spool.states
                self.spool = spool
                FAULT_LOG.add(spool.directory)
                self._hold()
        except SpoolError as exc:
            raise OSError(str(exc)) from exc
        finally:
            self._opening.release()
        self.catch_up()
        return True


class _FirstQueue(MemoryQueue):
    """A queue of a forked child until there is something to write."""

    def __init__(self, recorder: Recorder, name: Literal["events", "states"]) -> None:
        super().__init__(overflow=recorder.overflow)
        self._recorder = recorder
        self._name = name

    def append(self, line: bytes, number: int) -> None:
        recorder = self._recorder
        events = self._name == "events"
        if recorder.open_child():
            (recorder.events if events else recorder.states).append(line, number)
        else:
            recorder.take_late(
                recorder.fallback if events else recorder.fallback_states, line, number
            )


def _nothing() -> None:
    pass


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork() -> None:
    FAULT_LOG.forget()
    for recorder in list(_recorders):
        recorder.after_fork()


at_fork("recorders", in_child=_after_fork)
