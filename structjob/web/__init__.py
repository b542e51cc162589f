"""The HTTP API, live streams and web pages; see ``docs/http.md``."""

from structjob.web.app import app

__all__ = ["app"]
