"""A screen: what a person sees of what a program writes to a terminal."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
import unicodedata

_PIECE = re.compile(
    r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b([D78])|([\r\n\b])|([^\x1b\r\n\b]+)|(.)", re.DOTALL
)


class Screen:
    """What a terminal of *columns* × *lines* shows; what has left it at the top is in `history`.

    It knows what bars are drawn with, and fails for anything else.
    """

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.columns, self.lines = columns, lines
        self.rows: list[list[str]] = [[] for _ in range(lines)]
        self.history: list[str] = []
        self.x = self.y = 0
        self.colours: set[str] = set()
        self._saved = (0, 0)
        self._rest = ""

    def feed(self, text: str) -> Screen:
        text, self._rest = self._rest + text, ""
        # a sequence that comes in two pieces
        if (cut := re.search(r"\x1b(\[[0-9;?]*)?$", text)) is not None:
            text, self._rest = text[: cut.start()], cut[0]
        for arguments, command, short, control, plain, other in _PIECE.findall(text):
            if plain:
                self._print(plain)
            elif control == "\r":
                self.x = 0
            elif control == "\b":
                self.x = max(self.x - 1, 0)
            elif control == "\n" or short == "D":
                self._down()
            elif short == "7":
                self._saved = (self.x, self.y)
            elif short == "8":
                self.x, self.y = self._saved
            elif command == "A":
                self.y = max(self.y - int(arguments or 1), 0)
            elif command == "J" and arguments in ("", "0"):
                del self.rows[self.y][self.x :]
                self.rows[self.y + 1 :] = [[] for _ in range(self.lines - self.y - 1)]
            elif command == "K" and arguments in ("", "0"):
                del self.rows[self.y][self.x :]
            elif command == "m":
                self.colours.add(arguments)
            else:
                raise AssertionError(f"unknown: {command or short or other!r} with {arguments!r}")
        return self

    def _print(self, text: str) -> None:
        for char in text:
            width = 2 if unicodedata.east_asian_width(char) in "WF" else 1
            if self.x + width > self.columns:
                self.x = 0
                self._down()
            row = self.rows[self.y]
            row.extend(" " * (self.x + width - len(row)))
            row[self.x : self.x + width] = [char, ""][:width]
            self.x += width

    def _down(self) -> None:
        if self.y < self.lines - 1:
            self.y += 1
        else:
            self.history.append("".join(self.rows.pop(0)).rstrip())
            self.rows.append([])

    @property
    def shown(self) -> list[str]:
        """The lines of the screen, without the empty ones at its end."""
        shown = ["".join(row).rstrip() for row in self.rows]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    @property
    def everything(self) -> list[str]:
        """What has left the screen, and what it shows."""
        return self.history + self.shown


class OnTerminal:
    """A program on a terminal of its own.

    Args:
        command: What to start.
        environment: Added to this process's.
    """

    def __init__(
        self,
        command: list[str],
        *,
        columns: int = 80,
        lines: int = 24,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.screen = Screen(columns, lines)
        self.raw = b""
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
        }
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**kept, "TERM": "xterm", **(environment or {})},
        )
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, text: str, *, seconds: float = 60) -> None:
        """Read until *text* is on the screen, or has left it."""
        end = time.monotonic() + seconds
        while not any(text in line for line in self.screen.everything):
            assert self._read(end), f"{text!r} did not come: {self.screen.everything}"

    def wait(self, *, seconds: float = 60) -> int:
        """Read until the program ends; return its exit code."""
        end = time.monotonic() + seconds
        while self._read(end):
            pass
        return self.process.wait(max(end - time.monotonic(), 1))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def hang_up(self) -> None:
        """Let the terminal go away."""
        os.close(self._master)
        self._master = -1

    def _read(self, end: float) -> bool:
        if not select.select([self._master], [], [], max(end - time.monotonic(), 0))[0]:
            return False
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # EIO: the program has closed the other side
            return False
        self.raw += data
        self.screen.feed(self._decode(data))
        return bool(data)
