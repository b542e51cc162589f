"""What ``structjob run`` says on the stderr that it shares with the program: one warning
at most.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress


class Notices(logging.Handler):
    """Shows the first warning, as one line on stderr, and no other: whatever else reads it looks
    for what the program wrote.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._silent = False
        self._shown = False

    def listen(self) -> None:
        """Take what the library and its drivers log. Nothing is shown before `show`: of the
        database the command says more.
        """
        logger = logging.getLogger("structjob")
        logger.handlers, logger.propagate = [self], False
        self._silent = True
        logging.getLogger().addHandler(logging.NullHandler())

    def show(self) -> None:
        """Show what comes from now on."""
        self._silent = False

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            if not self._silent:
                self.warn(record.getMessage())

    def warn(self, text: str) -> None:
        """Show *text*, unless something was shown before."""
        from structjob.text.escaping import escape

        if self._shown:
            return
        self._shown = True
        with suppress(OSError):
            os.write(2, f"structjob: warning: {escape(text)}\n".encode(errors="backslashreplace"))
