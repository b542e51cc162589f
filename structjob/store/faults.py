"""What an error of a server means, and the message that says how to fix it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import URL

from structjob.urls.tls import TLS


@dataclass(frozen=True, slots=True)
class Fault:
    """The meaning of a database error.

    Attributes:
        kind: One of these:
            ``data``: the database refuses the content, and would refuse it again.
            ``conflict``: two transactions conflict. The caller tries again at once.
            ``duplicate``: another transaction's row has the same key. The caller tries again at
                once, and refuses the data if that fails.
            ``away``: the database cannot do it now.
            ``stale``: perhaps only an idle connection was cut. The caller tries again at once.
        message: The problem and its fix, for people. It contains no stored data.
        permanent: Whether the error lasts until someone repairs it, rather than passing with time.
        reason: The database's own words, for the dead letters. They are stored with the data that
            they are about.
        gone: Whether the database or its tables existed when it was opened and are missing now.
    """

    kind: Literal["data", "conflict", "duplicate", "away", "stale"]
    message: str
    permanent: bool = False
    reason: str = ""
    gone: bool = False


class Faults:
    """The faults that all servers have in common.

    Args:
        masked_url: The URL without its password, for messages.
        url: The URL.
        tls: Its options of TLS.
    """

    def __init__(self, masked_url: str, url: URL, tls: TLS) -> None:
        self.masked_url = masked_url
        self.url = url
        self.tls = tls

    def unreachable(self, error: BaseException | None, text: str = "") -> Fault:
        """Return the fault that no server answers at the URL, or that the TLS handshake failed."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return self.not_verified(error)
        if isinstance(error, ssl.SSLError):
            said = error.reason or str(error)
            if "CERTIFICATE_REQUIRED" in said.upper().replace(
                " ", "_"
            ) or "HANDSHAKE_FAILURE" in said.upper().replace(" ", "_"):
                return self.certificate_wanted(said)
            return Fault(
                "away",
                f"TLS with {self.masked_url} failed: {said}; is TLS set up on the server?",
                permanent=True,
            )
        if isinstance(error, ConnectionError) and "SSL" in str(error):
            return self.no_tls(str(error))
        name = getattr(error, "filename", None)
        why = text or getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Fault(
            "away",
            f"cannot connect to {self.masked_url}: {why}{f' ({name})' if name else ''}; is the server running, and is the address right?",
        )

    def wrong_login(self, text: str, hint: str = "") -> Fault:
        """Return the fault that the server refuses the user, with the server's text."""
        message = f"{self.masked_url} refuses the login: {text}; correct the user and the password in the URL{hint}"
        return Fault("away", message, permanent=True)

    def login_hint(self) -> str:
        """Return other possible causes when a server refuses a user without a reason."""
        if not self.tls.wanted:
            return ", or add ?ssl-mode=required if the server wants TLS of this user"
        return (
            ""
            if self.tls.cert
            else ", or add sslcert and sslkey if the server wants a client certificate of this user"
        )

    def tls_wanted(self, text: str) -> Fault:
        """Return the fault that the server accepts only connections with TLS."""
        option = (
            "sslmode=require"
            if self.url.get_backend_name() == "postgresql"
            else "ssl-mode=required"
        )
        return Fault(
            "away",
            f"{self.masked_url} takes connections with TLS only: {text}; add {option} to the URL, "
            "and sslrootcert=/path/to/ca.pem to verify the server",
            permanent=True,
        )

    def certificate_wanted(self, text: str) -> Fault:
        """Return the fault that the server requires a client certificate."""
        how = "add sslcert=/path/to/certificate.pem and sslkey=/path/to/key.pem to the URL"
        return Fault(
            "away", f"{self.masked_url} wants a client certificate: {text}; {how}", permanent=True
        )

    def no_tls(self, text: str) -> Fault:
        """Return the fault that the URL requires TLS and the server does not support it."""
        name = self.tls.names.get("mode", "sslmode")
        how = f"set it up on the server, or write {name}=disable in the URL"
        return Fault("away", f"{self.masked_url} does not speak TLS: {text}; {how}", permanent=True)

    def not_verified(self, error: ssl.SSLCertVerificationError) -> Fault:
        """Return the fault that the server's certificate is not accepted."""
        name = self.tls.names.get("mode", "sslmode")
        how = f"give the certificate of its authority with {self.tls.names.get('ca', 'sslrootcert')}=/path/to/ca.pem"
        if "match" in error.verify_message:
            how = f"write the host as in its certificate, or {name}=verify-ca"
        return Fault(
            "away",
            f"the certificate of {self.masked_url} is not accepted: {error.verify_message}; {how}",
            permanent=True,
        )

    def no_database(self, create: str) -> Fault:
        """Return the fault that there is no such database, and how to *create* it."""
        message = (
            f"there is no database {self.url.database!r} at {self.masked_url}; create it: {create}"
        )
        return Fault("away", message, permanent=True, gone=True)

    def no_tables(self, text: str) -> Fault:
        """Return the fault that a table or a column is missing."""
        message = (
            f"the tables in {self.masked_url} are not structjob's: {text}; run `structjob migrate`"
        )
        return Fault("away", message, permanent=True, gone=True)

    def not_allowed(self, text: str) -> Fault:
        """Return the fault that the user lacks a right."""
        rights = "SELECT, INSERT, UPDATE and DELETE on structjob's tables"
        if "sequence" in text:
            rights += " and USAGE on their sequences"
        return Fault(
            "away",
            f"the user of {self.masked_url} lacks a right: {text}; grant {rights}, and have `structjob migrate` create them",
            permanent=True,
        )

    def read_only(self, text: str, lift: str) -> Fault:
        """Return the fault that the server accepts no writes.

        *lift* is the statement that would remove the setting.
        """
        # Not permanent, because a standby becomes the primary when the primary fails. We do not
        # remove the setting: administrators, and hosts whose disk is full, set it to protect the
        # database.
        how = f"name the primary server in the URL; if it is the primary: {lift}"
        return Fault("away", f"the database {self.masked_url} is read-only: {text}; {how}")

    def too_many(self, text: str) -> Fault:
        """Return the fault that the server accepts no more connections."""
        return Fault(
            "away",
            f"{self.masked_url} takes no more connections: {text}; raise max_connections there, or lower pool_size in engine_options",
        )

    def used_up(self, text: str) -> Fault:
        """Return the fault that the user has reached a limit that the server sets for it."""
        return Fault(
            "away",
            f"{self.masked_url} accepts no more from this user: {text}; raise this limit of the user there (ALTER USER), or connect as another user",
        )

    def not_working(self, text: str) -> Fault:
        """Return the fault for any other error, with the server's text."""
        return Fault("away", f"the database {self.masked_url} does not work: {text}")

    def foreign_column(self, text: str) -> Fault:
        """Return the fault that a column that was added to a table of ours must be given."""
        return self.not_working(
            f"{text}; the column is not structjob's: give it a default, or let it be NULL"
        )

    def conflict(self, text: str) -> Fault:
        """Return the fault that another transaction is in the way."""
        return Fault(
            "conflict", f"the database {self.masked_url} is busy with other transactions: {text}"
        )

    def refused(self, kind: Literal["data", "duplicate"], code: object, reason: str) -> Fault:
        """Return the fault that the database refuses this transaction.

        *reason* may quote the data.
        """
        return Fault(
            kind,
            f"the database {self.masked_url} refuses what it was given (error {code})",
            reason=reason,
        )
