"""Flask, Django and all other WSGI applications: each request is a job."""

from structjob.integrations.wsgi import JobMiddleware, ResponseError

__all__ = ["JobMiddleware", "ResponseError"]
