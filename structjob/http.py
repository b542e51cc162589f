"""httpx, requests and aiohttp: requests carry the ids of the current job."""

from structjob.integrations.http import aiohttp_middleware, propagate

__all__ = ["aiohttp_middleware", "propagate"]
