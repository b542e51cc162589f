"""FastAPI, Starlette, Litestar and all other ASGI applications: each request is a job."""

from structjob.integrations.asgi import JobMiddleware, ResponseError, install, lifespan

__all__ = ["JobMiddleware", "ResponseError", "install", "lifespan"]
