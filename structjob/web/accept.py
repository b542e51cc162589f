"""What a client accepts: media types and encodings, with their weights."""

from __future__ import annotations

from starlette.datastructures import Headers


def accepts(headers: Headers, media_type: str) -> bool:
    """Return whether the client accepts an answer of *media_type*; without Accept, it does."""
    weights = _weights(headers.get("accept", ""))
    kind = media_type.partition("/")[0]
    for name in (media_type, f"{kind}/*", "*/*"):
        if name in weights:
            return weights[name] > 0
    return not weights


def takes_gzip(headers: Headers) -> bool:
    """Return whether an answer may be compressed."""
    weights = _weights(headers.get("accept-encoding", ""))
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def wants_page(headers: Headers) -> bool:
    """Return whether a browser asks, which shows the answer to a person."""
    return _weights(headers.get("accept", "")).get("text/html", 0.0) > 0


def _weights(text: str) -> dict[str, float]:
    found = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, *parameters = (one.strip().lower() for one in part.split(";"))
        weight = next((one[2:] for one in parameters if one.startswith("q=")), "1")
        try:
            found[name] = float(weight)
        except ValueError:
            found[name] = 1.0
    return found
