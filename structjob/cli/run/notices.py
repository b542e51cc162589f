"""The messages of ``structjob run`` on the stderr that it shares with the program: at most one
warning.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress


class Notices(logging.Handler):
    """Shows only the first warning, as one line on stderr.

    Other readers of stderr look for what the program wrote.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._silent = False
        self._shown = False

    def listen(self) -> None:
        """Handle the log of the library and its drivers.

        Nothing is shown before `show`, because the command itself reports more about the database.
        """
        logger = logging.getLogger("structjob")
        logger.handlers, logger.propagate = [self], False
        self._silent = True
        logging.getLogger().addHandler(logging.NullHandler())

    def show(self) -> None:
        """Show warnings from now on."""
        self._silent = False

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            if not self._silent:
                self.warn(record.getMessage())

    def warn(self, text: str) -> None:
        """Show *text*, unless a warning was shown before."""
        from structjob.text.escaping import escape

        if self._shown:
            return
        self._shown = True
        with suppress(OSError):
            os.write(2, f"structjob: warning: {escape(text)}\n".encode(errors="backslashreplace"))
