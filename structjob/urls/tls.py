"""The TLS options of a URL, with the names that libpq, MySQL or the drivers use."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import URL

from structjob.exceptions import InvalidURL

Mode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]

_OPTIONS = {
    "mode": ("sslmode", "ssl_mode", "ssl"),
    "ca": ("sslrootcert", "ssl_ca", "sslca"),
    "cert": ("sslcert", "ssl_cert"),
    "key": ("sslkey", "ssl_key"),
    "check_hostname": ("ssl_check_hostname", "ssl_verify_identity"),
    "verify": ("ssl_verify_cert", "ssl_verify_server_cert"),
}
_NAMES = {name: what for what, names in _OPTIONS.items() for name in names}

_YES = ("true", "1", "on", "yes")
_NO = ("false", "0", "off", "no")
_MODES: dict[str, Mode] = {
    **dict.fromkeys((*_NO, "disable", "disabled"), "disable"),
    **dict.fromkeys(("allow", "prefer", "preferred"), "prefer"),
    **dict.fromkeys((*_YES, "require", "required"), "require"),
    "verify-ca": "verify-ca",
    **dict.fromkeys(("verify-full", "verify-identity"), "verify-full"),
}


@dataclass(frozen=True, slots=True)
class TLS:
    """The TLS options of a URL.

    Args:
        mode: The required level of TLS; ``None`` if no option sets it.
        ca: The file with the certificate of the authority, which verifies the server's certificate.
        cert: The file with the client certificate.
        key: The file with the client's key, unless the key is in the same file.
        names: The options' names in the URL, by the field names here; used in messages.
    """

    mode: Mode | None
    ca: str | None
    cert: str | None
    key: str | None
    names: dict[str, str]

    @property
    def wanted(self) -> bool:
        """Whether nothing may be sent without TLS.

        A client certificate implies this, because it is useful only with TLS.
        """
        if self.mode == "disable":
            return False
        return self.mode in ("require", "verify-ca", "verify-full") or bool(
            self.cert or self.key or (self.ca and self.mode is None)
        )

    def context(self) -> ssl.SSLContext:
        """Return the context for the drivers.

        Raises:
            InvalidURL: if a file cannot be read, or has the wrong content.
        """
        mode = (
            self.mode
            if self.mode not in (None, "prefer")
            else "verify-full"
            if self.ca
            else "require"
        )
        if mode == "require" and self.ca:
            mode = "verify-ca"  # as libpq does: a URL with an authority expects verification
        context = ssl.create_default_context()
        context.check_hostname = mode == "verify-full"
        if mode == "require":
            context.verify_mode = ssl.CERT_NONE
        if self.ca:
            self._load("ca", self.ca, lambda: context.load_verify_locations(cafile=self.ca))
        if self.cert:
            cert = self.cert
            self._load("cert", cert, lambda: context.load_cert_chain(cert, self.key))
        elif self.key:
            raise InvalidURL(
                f"the URL has {self.names['key']}, but no certificate: add sslcert=/path/to/certificate.pem"
            )
        return context

    def _load(self, what: str, path: str, load: Callable[[], None]) -> None:
        for name, file in (
            (what, path),
            *((("key", self.key),) if what == "cert" and self.key else ()),
        ):
            try:
                Path(file).read_bytes()
            except OSError as exc:
                raise InvalidURL(
                    f"{self.names[name]}={file} in the URL cannot be read: {exc.strerror}"
                ) from None
        try:
            load()
        except (ssl.SSLError, OSError, ValueError) as exc:
            kind = "the authority's certificate" if what == "ca" else "a certificate with its key"
            raise InvalidURL(
                f"{self.names[what]}={path} in the URL is not {kind} in PEM form ({getattr(exc, 'reason', None) or exc}): "
                "begin the file with -----BEGIN, and give the key with sslkey=/path/to/key.pem if it is in another file"
            ) from None


def taken(url: URL) -> tuple[TLS, URL]:
    """Return the TLS options of *url*, and the URL without them.

    Raises:
        InvalidURL: if an option has an invalid value.
    """
    found: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, value in url.query.items():
        what = _NAMES.get(name.lower().replace("-", "_"))
        if what is not None:
            found[what], names[what] = value if isinstance(value, str) else value[-1], name
    mode = _mode(names.get("mode", ""), found["mode"]) if "mode" in found else None
    if "check_hostname" in found or "verify" in found:
        # MySQL's older options with the same meaning.
        verified = _is_yes(names, found, "verify", default=True)
        identified = _is_yes(names, found, "check_hostname", default=mode in (None, "verify-full"))
        if mode != "disable":
            mode = (
                "require"
                if not verified
                else "verify-full"
                if identified
                else "verify-ca"
                if "ca" in found
                else mode or "require"
            )
    return TLS(
        mode, found.get("ca"), found.get("cert"), found.get("key"), names
    ), url.difference_update_query(names.values())


def _mode(name: str, value: str) -> Mode:
    try:
        return _MODES[value.lower().replace("_", "-")]
    except KeyError:
        known = "disable, prefer, require, verify-ca or verify-full"
        raise InvalidURL(
            f"{name}={value} in the URL is unknown: write {name}= and one of {known}"
        ) from None


def _is_yes(names: dict[str, str], found: dict[str, str], what: str, *, default: bool) -> bool:
    if what not in found:
        return default
    value = found[what].lower()
    if value not in (*_YES, *_NO):
        raise InvalidURL(
            f"{names[what]}={found[what]} in the URL is unknown: write {names[what]}=true or {names[what]}=false"
        )
    return value in _YES
