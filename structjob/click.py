"""click and Typer: each run of a command is a job."""

from structjob.integrations.click import tracked

__all__ = ["tracked"]
