"""The routes below ``/api/v1``, one module for each kind of record."""

from structjob.web.api import compat, downloads, errors, jobs, logs, sessions, statistics, storage

ROUTERS = (
    compat.router,  # before the routes that accept any name below /logs
    downloads.router,
    jobs.router,
    logs.router,
    statistics.router,
    errors.router,
    sessions.router,
    storage.router,
)
"""In the order in which paths are matched."""
