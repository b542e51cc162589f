"""What the library says on its own logger, for a program that reports it."""

import logging


class Said(logging.Handler):
    """Keeps the messages at warning and above, which a person would see."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
