"""The command line."""

from structjob.cli.app import main

__all__ = ["main"]
