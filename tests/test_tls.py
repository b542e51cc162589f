"""TLS: asked for in whichever words, refused in words that say what to type; on real servers with
certificates made for the test.
"""

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from breakable_servers import MariaDB, PostgreSQL, ServerMissing
from each import each
from servers import absent
from store_support import opened

from structjob.exceptions import InvalidURL, StoreUnavailable
from structjob.store.factory import make_store
from structjob.urls import tls
from structjob.urls.url import parse

SERVERS = pytest.mark.parametrize("server", ["mariadb", "postgresql"], indirect=True)


@each("scheme", ["mariadb", "mysql", "postgresql"])
@each(
    ("query", "mode", "wanted"),
    [
        ("", None, False),
        ("sslmode=require", "require", True),
        ("sslmode=disable", "disable", False),
        ("sslmode=prefer", "prefer", False),
        ("ssl=true", "require", True),
        ("ssl=0", "disable", False),
        ("ssl-mode=REQUIRED", "require", True),
        ("ssl_mode=VERIFY_IDENTITY", "verify-full", True),
        ("ssl-mode=verify_ca&ssl-ca=ca.pem", "verify-ca", True),
        ("sslrootcert=ca.pem", None, True),
        ("ssl_ca=ca.pem&ssl_check_hostname=false", "verify-ca", True),
    ],
)
def test_the_words_of_each_world(scheme, query, mode, wanted):
    """Every spelling of libpq, MySQL and the drivers means the same on each server, and is gone
    from what a driver gets (faults 58).
    """
    found, rest = tls.taken(
        parse(
            f"{scheme}://u@h/d?{query}&application_name=x"
            if query
            else f"{scheme}://u@h/d?application_name=x"
        )
    )
    assert (found.mode, found.wanted) == (mode, wanted)
    assert dict(rest.query) == {"application_name": "x"}


@each("scheme", ["mariadb", "postgresql"])
@each(
    ("query", "told"),
    [
        (
            "ssl_mode=verify",
            "ssl_mode=verify in the URL is unknown: write ssl_mode= and one of disable",
        ),
        ("ssl_check_hostname=maybe", "write ssl_check_hostname=true"),
        (
            "ssl_ca=/nowhere/ca.pem",
            "ssl_ca=/nowhere/ca.pem in the URL cannot be read: No such file",
        ),
        (
            "sslcert={self}",
            "sslcert={self} in the URL is not a certificate with its key in PEM form",
        ),
        ("sslkey={self}", "but no certificate: add sslcert="),
    ],
)
async def test_an_option_that_cannot_be(scheme, query, told):
    """What is wrong with an option is said with its name and what to write (faults 58)."""
    store = None
    try:
        with pytest.raises(InvalidURL) as caught:
            store = make_store(f"{scheme}://u@127.0.0.1:1/d?{query.format(self=__file__)}", {})
            await store.open()
    finally:
        if store is not None:
            await store.close()
    assert told.format(self=__file__) in str(caught.value)


def _openssl(directory, *words):
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)


def make_certificates(directory: Path) -> None:
    """Make an authority, a certificate for 127.0.0.1 and one for a client."""
    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    _openssl(
        directory,
        *new,
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    )
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1"),
        ("client", "subjectAltName=DNS:app"),
    ):
        (directory / "extension").write_text(extension)
        _openssl(
            directory, *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"
        )
        _openssl(
            directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "extension", "-out", f"{name}.pem",
        )  # fmt: skip


class SecureMariaDB(MariaDB):
    """Speaks TLS; ``tls`` must, ``cert`` needs a certificate as well."""

    certificates: Path

    def _serve(self):
        files = {"ca": "ca.pem", "cert": "server.pem", "key": "server.key"}
        return [
            *super()._serve(),
            *(f"--ssl-{name}={self.certificates / file}" for name, file in files.items()),
        ]

    def set_up(self):
        self.sql("CREATE DATABASE test", database="")
        for name, what in (("tls", "SSL"), ("cert", "X509")):
            self.sql(
                f"CREATE USER {name}@'127.0.0.1' REQUIRE {what}; GRANT ALL ON test.* TO {name}@'127.0.0.1'"
            )


class SecurePostgreSQL(PostgreSQL):
    """The same."""

    certificates: Path

    def _serve(self):
        files = {
            "ssl_ca_file": "ca.pem",
            "ssl_cert_file": "server.pem",
            "ssl_key_file": "server.key",
        }
        settings = [f"{name}={self.certificates / file}" for name, file in files.items()]
        return [
            *super()._serve(),
            *(word for setting in ("ssl=on", *settings) for word in ("-c", setting)),
        ]

    def set_up(self):
        self.sql(
            "CREATE DATABASE test; CREATE ROLE tls SUPERUSER LOGIN; CREATE ROLE cert SUPERUSER LOGIN",
            database="",
        )
        (self.directory / "data" / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 trust\nhostssl all tls 127.0.0.1/32 trust\n"
            "hostssl all cert 127.0.0.1/32 trust clientcert=verify-ca\n"
        )
        self.sql("SELECT pg_reload_conf()", database="")


@pytest.fixture(scope="module")
def server(request):
    directory = Path(tempfile.mkdtemp(prefix="structjob-tls-"))
    directory.chmod(0o755)
    kind = {"mariadb": SecureMariaDB, "postgresql": SecurePostgreSQL}[request.param]
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        try:
            made = kind(directory / "server")
            made.certificates = directory
            make_certificates(directory)
            for path in directory.glob("*.key"):
                path.chmod(0o600)
            with contextlib.suppress(PermissionError, LookupError):
                shutil.chown(directory / "server.key", made.account, made.account)
            stack.enter_context(made)
        except ServerMissing as exc:
            absent(request.param, str(exc))
        made.set_up()
        yield made


async def refused(url):
    store = make_store(url, {})
    try:
        with pytest.raises(StoreUnavailable) as caught:
            await store.open()
    finally:
        await store.close()
    return caught.value


@pytest.mark.slow
@SERVERS
async def test_a_server_that_demands_tls(server):
    """Every spelling connects; without one the error says that the server demands TLS, and what to
    add (faults 58).
    """
    ca = server.certificates / "ca.pem"
    verified = (
        f"sslmode=verify-full&sslrootcert={ca}",
        f"ssl_ca={ca}",
        f"ssl-mode=VERIFY_CA&ssl-ca={ca}",
    )
    for query in ("sslmode=require", "ssl=true", "ssl-mode=REQUIRED", *verified):
        async with opened(None, f"{server.url(user='tls')}?{query}"):
            pass
    told = await refused(f"{server.url(user='tls')}?sslmode=disable")
    if server.backend == "postgresql":
        assert "takes connections with TLS only" in str(told)
        assert "add sslmode=require" in str(told)
    else:  # which says no more than that the login is refused
        assert "add ?ssl-mode=required if the server wants TLS of this user" in str(told)
    assert told.permanent


@pytest.mark.slow
@SERVERS
async def test_a_server_that_demands_a_certificate(server):
    """A user's certificate is sent; without one the error names it as missing (faults 58)."""
    own = f"sslcert={server.certificates}/client.pem&sslkey={server.certificates}/client.key"
    async with opened(None, f"{server.url(user='cert')}?{own}"):
        pass
    async with opened(
        None, f"{server.url(user='cert')}?sslmode=require&{own.replace('ssl', 'ssl_')}"
    ):
        pass
    told = await refused(f"{server.url(user='cert')}?sslmode=require")
    assert "client certificate" in str(told)
    assert "sslcert" in str(told)
    assert told.permanent


@pytest.mark.slow
@SERVERS
async def test_a_server_of_another_authority(server, tmp_path):
    """The error of a certificate that cannot be verified names the option for its authority (faults
    58).
    """
    make_certificates(tmp_path)
    told = await refused(
        f"{server.url(user='tls')}?sslmode=verify-full&sslrootcert={tmp_path}/ca.pem"
    )
    assert "is not accepted" in str(told)
    assert "sslrootcert=/path/to/ca.pem" in str(told)
    named = server.url(user="tls").replace("127.0.0.1", "localhost")
    told = await refused(f"{named}?sslmode=verify-full&sslrootcert={server.certificates}/ca.pem")
    assert "=verify-ca" in str(told)
    async with opened(None, f"{named}?sslmode=verify-ca&sslrootcert={server.certificates}/ca.pem"):
        pass


@pytest.mark.parametrize("database", ["mariadb", "postgresql"], indirect=True)
async def test_a_server_without_tls(database):
    """Where TLS is asked for and the server has none, nothing is sent in the clear, and the message
    says so (faults 58).
    """
    told = await refused(f"{database.url}?sslmode=require")
    assert "TLS" in str(told)
