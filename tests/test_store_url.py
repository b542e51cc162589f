"""Database URLs: what people have in their settings is what a tracker takes, and no password is
ever shown.
"""

from pathlib import Path

import pytest
from each import each
from sqlalchemy import URL, make_url

from structjob.cli.database import Database
from structjob.cli.screen import Failure
from structjob.exceptions import InvalidURL
from structjob.store.factory import make_store
from structjob.urls import driver_options
from structjob.urls.url import identity, masked, parse, sqlite_path


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("STRUCTJOB_DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)


def test_a_name_that_is_not_utf_8(tmp_path, monkeypatch):
    """A path whose bytes are no UTF-8 is refused in one line, also where it is that of the working
    directory (R49).
    """
    with pytest.raises(InvalidURL, match="is not UTF-8"):
        parse("sqlite:///\udcff.db")
    there = tmp_path / "\udcff"
    there.mkdir()
    monkeypatch.chdir(there)
    with pytest.raises(Failure, match="is not UTF-8"):
        _ = Database("jobs.db").url


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("sqlite:///jobs.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:///jobs.db", "sqlite+aiosqlite"),
        ("sqlite+pysqlite:///jobs.db", "sqlite+aiosqlite"),
        ("mysql://u:p@h/d", "mysql+asyncmy"),
        ("mysql+pymysql://u:p@h/d", "mysql+asyncmy"),
        ("mariadb://u:p@h/d", "mariadb+asyncmy"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg"),
        ("postgres://u:p@h/d", "postgresql+asyncpg"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql+asyncpg"),
    ],
)
def test_any_usual_scheme_gets_the_async_driver(given, driver):
    """Whatever driver an application's own URL names, structjob takes it and uses its own (R5,
    R51).
    """
    parsed = parse(given)
    assert parsed.drivername == driver
    assert (parsed.username, parsed.password, parsed.host, parsed.database) == (
        make_url(given).username,
        make_url(given).password,
        make_url(given).host,
        make_url(given).database,
    )
    parsed.get_dialect()  # SQLAlchemy knows it


def test_a_sqlalchemy_url_is_taken_as_it_is():
    """A URL object works as well as text (R51)."""
    assert parse(URL.create("postgresql", "u", "p@ss/word", "h", 5432, "d")).password == "p@ss/word"


def test_without_a_url_the_environment_decides(monkeypatch):
    """$STRUCTJOB_DATABASE_URL comes before $DATABASE_URL, and an empty one counts as absent; else
    it is a file here (R51).
    """
    assert parse(None).render_as_string() == "sqlite+aiosqlite:///structjob.db"
    monkeypatch.setenv("DATABASE_URL", "postgres://h/app")
    assert parse(None).database == "app"
    monkeypatch.setenv("STRUCTJOB_DATABASE_URL", "")
    assert parse().database == "app"
    monkeypatch.setenv("STRUCTJOB_DATABASE_URL", "mariadb://h/jobs")
    assert parse().database == "jobs"


def test_a_question_mark_in_the_name_of_a_file_is_no_option():
    """faults 37: `a?b.db` is refused with the right form, not opened as `a`; options that SQLite
    knows are options.
    """
    for url in (
        "sqlite:///a?b.db",
        "sqlite:///a?b=c.db",
        "sqlite:///a?timeout=5&b.db",
        "sqlite:///dir?/a.db",
    ):
        with pytest.raises(InvalidURL, match=r"write %3F, as in sqlite:///") as caught:
            parse(url)
        meant = str(caught.value).rpartition("as in ")[2]
        assert sqlite_path(parse(meant)).name == Path(url.removeprefix("sqlite:///")).name
    assert sqlite_path(parse("sqlite:///a.db?timeout=5&check_same_thread=false")).name == "a.db"


def test_several_hosts():
    """faults 37: as libpq has them, with ports of their own or without, they are tried in turn; a
    driver that takes one says so.
    """
    for url in (
        "postgresql://u:p@a:1,[::1]:2,c/d?port=5432",
        "postgresql://u:p@/d?host=a:1,[::1]:2,c",
    ):
        options, rest = driver_options.taken(parse(url), "")
        assert options.arguments == {"host": ["a", "::1", "c"], "port": [1, 2, 5432]}
        assert rest.host is None
    assert driver_options.taken(parse("postgresql://u@/d?host=/run/pg&port=5433"), "")[
        0
    ].arguments == {"host": "/run/pg", "port": 5433}
    for url in ("mariadb://u:hunter2@a:1,b:2/d", "mysql://u:hunter2@a,b/d"):
        with pytest.raises(InvalidURL, match="several hosts") as caught:
            make_store(url, {})
        assert "hunter2" not in str(caught.value)


def test_the_options_of_libpq_are_translated():
    """faults 37: what asyncpg has under another name, or as a setting of the session, is handed on
    as that.
    """
    url = (
        "postgresql://h/d?application_name=app&connect_timeout=5&target_session_attrs=read-write&keepalives_idle=30&gssencmode=prefer"
        r"&channel_binding=prefer&client_encoding=UTF8&options=-c%20statement_timeout%3D9s%20-csearch_path%3Da%5C%20b%20--work-mem%3D8MB"
    )
    options, rest = driver_options.taken(parse(url), "")
    assert options.arguments == {"timeout": 5.0, "target_session_attrs": "read-write"}
    assert options.settings == {
        "application_name": "app",
        "statement_timeout": "9s",
        "search_path": "a b",
        "work_mem": "8MB",
    }
    assert dict(rest.query) == {}
    assert driver_options.taken(parse("postgresql://h/d?connect_timeout=0"), "")[0].arguments == {
        "timeout": None
    }
    assert driver_options.taken(parse("mysql://h/d?charset=utf8&connect_timeout=5&read_timeout=9&compress=true"), "")[0].arguments == {
        "connect_timeout": 5, "read_timeout": 9.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("channel_binding=require", "option channel_binding in .* sslmode=verify-full"),
        ("gssencmode=require", "option gssencmode in .* sslmode=require"),
        ("hostaddr=10.0.0.1", "write the address as the host"),
        ("sslpassword=hunter2", "pass an ssl.SSLContext"),
        ("aplication_name=app", "option aplication_name in .* is unknown.* application_name"),
        ("connect_timeout=soon", "option connect_timeout in .* must be a number"),
        ("options=statement_timeout", "write options=-c name=value"),
        ("schema=a-b", "is not the name of a schema"),
        ("schema=pg_x", "is not the name of a schema"),
    ],
)
def test_an_option_that_cannot_be_used(option, says):
    """faults 37: it is named, with what to write in its place; nothing asked for is left out
    silently, and no secret is shown.
    """
    with pytest.raises(InvalidURL, match=says) as caught:
        make_store(f"postgresql://ada:hunter2@h/d?{option}", {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["mariadb", "mysql"])
def test_an_option_of_another_database(scheme):
    """faults 37: an option that the driver does not know is named before anything is connected."""
    with pytest.raises(InvalidURL, match=r"option application_name in .* is unknown"):
        make_store(f"{scheme}://h/d?application_name=app", {})
    with pytest.raises(InvalidURL, match="a schema of MariaDB and MySQL is a database"):
        make_store(f"{scheme}://h/d?schema=logs", {})


def test_an_unknown_scheme_names_itself_and_the_known_ones():
    """The message says which scheme was wrong, which there are, gives an example, and hides the
    password.
    """
    with pytest.raises(InvalidURL) as caught:
        parse("oracle://scott:tiger@db/orcl")
    message = str(caught.value)
    assert "oracle" in message
    for known in ("sqlite", "mysql", "mariadb", "postgresql", "sqlite:///jobs.db"):
        assert known in message
    assert "tiger" not in message


@pytest.mark.parametrize(
    "bad", ["", "u:hunter2@h", "postgres//u:hunter2@h/d", "://", "postgresql://u:hunter2@h:port/d"]
)
def test_what_is_no_url_is_refused_without_showing_a_password(bad):
    """A typing error in a URL gets a message with an example, never the password."""
    with pytest.raises(InvalidURL) as caught:
        parse(bad)
    assert "sqlite:///jobs.db" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_two_slashes_for_a_file_are_explained():
    """`sqlite://jobs.db` is the commonest slip; the message gives the right form."""
    with pytest.raises(InvalidURL, match=r"sqlite:///jobs\.db"):
        parse("sqlite://jobs.db")


def test_another_type_is_refused():
    """What is neither text, a path nor a URL is refused; the message says what is wanted."""
    with pytest.raises(InvalidURL, match="not int"):
        parse(7)


def test_a_path_is_a_file(tmp_path):
    """A path object names an SQLite file, whatever characters are in it; `:memory:` one in
    memory.
    """
    assert sqlite_path(parse(tmp_path / "a?b#c%d.db")) == tmp_path / "a?b#c%d.db"
    assert sqlite_path(parse(":memory:")) is None


def test_the_text_of_a_path_is_a_file_too(tmp_path, monkeypatch):
    """Ruling 12: `Tracker("jobs.db")` is what `structjob --db jobs.db` is; what looks like a URL is
    one.
    """
    monkeypatch.chdir(tmp_path)
    for text in ("jobs.db", "./jobs.db", str(tmp_path / "jobs.db")):
        assert sqlite_path(parse(text)) == tmp_path / "jobs.db"
    assert sqlite_path(parse("a@b.db")) == tmp_path / "a@b.db"
    monkeypatch.setenv("STRUCTJOB_DATABASE_URL", "other.db")
    assert sqlite_path(parse()) == tmp_path / "other.db"


def test_masked_hides_passwords_in_their_place_and_in_the_query():
    """What is logged and printed shows the database but no secret."""
    assert masked("postgresql://ada:hunter2@h:5432/d") == "postgresql://ada:***@h:5432/d"
    assert "hunter2" not in masked("postgresql://h/d?password=hunter2&sslpassword=hunter2")
    assert "hunter2" not in masked("not a url ada:hunter2@h")
    assert masked("sqlite:///jobs.db") == "sqlite:///jobs.db"


def test_sqlite_path_is_absolute_and_none_in_memory(tmp_path, monkeypatch):
    """The file (and so its spool) stays where it was when the program changes its
    directory later.
    """
    monkeypatch.chdir(tmp_path)
    assert sqlite_path(parse("sqlite:///jobs.db")) == tmp_path / "jobs.db"
    assert sqlite_path(parse(f"sqlite:///{tmp_path}/a b.db")) == tmp_path / "a b.db"
    assert sqlite_path(parse(f"sqlite:///file:{tmp_path}/a%20b.db?uri=true")) == tmp_path / "a b.db"
    for memory in (
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:x?mode=memory&uri=true",
    ):
        assert sqlite_path(parse(memory)) is None
    assert sqlite_path(parse("postgresql://h/d")) is None


@pytest.mark.parametrize("spelled", ["pa@ss", "p@a@ss"])
def test_a_password_with_an_at_sign_is_masked_whole_and_the_mistake_is_named(spelled):
    """The most frequent slip with a password: all of it stays hidden, and the message says what to
    write (R33).
    """
    with pytest.raises(InvalidURL, match="%40") as caught:
        parse(f"postgresql://ada:{spelled}@db.internal/logs")
    assert "postgresql://ada:***@db.internal/logs" in str(caught.value)
    assert "ss@" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("postgresql://ada:hunter2@h:54x2/d", "because its port is not a number"),
        ('"sqlite:////srv/jobs.db"', "because it begins with a quotation mark"),
        ("'postgresql://ada:hunter2@h/d'", "because it begins with a quotation mark"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url, fault):
    """A port that is no number; quotation marks, which Docker's ``--env-file`` keeps (R49)."""
    with pytest.raises(InvalidURL, match=f"is not a database URL, {fault}") as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)


def test_a_command_takes_a_url_with_a_slash_too_few_for_no_file():
    """`--db postgresql:/…` is a slip, not the path of a file to be made; its password stays hidden
    (R33, R49).
    """
    with pytest.raises(Failure, match="is not a database URL") as caught:
        _ = Database("postgresql:/ada:hunter2@db.internal/logs").url
    assert "hunter2" not in str(caught.value)
    assert Database("postgresql.db").path == Path("postgresql.db").absolute()


@each(
    ("one", "other", "same"),
    [
        ("postgresql://ada:x@h:5432/d?sslmode=require", "postgres+psycopg2://bob@h:5432/d", True),
        ("mysql://ada:x@h/d?charset=utf8mb4", "mariadb+pymysql://h/d", True),
        ("sqlite:///jobs.db?timeout=5", f"sqlite:///{Path.cwd()}/x/../jobs.db", True),
        ("postgresql://h/d", "postgresql://h/e", False),
        ("postgresql://h/d", "postgresql://H.:5432/d", True),
        ("postgresql://localhost/d", "postgresql://127.0.0.1/d", True),
        ("postgresql://localhost/d", "postgresql:///d?host=/var/run/postgresql", True),
        ("mysql://[::1]:3306/d", "mysql://localhost/d?ssl_ca=/etc/ca.pem", True),
        ("postgresql://h/d", "postgresql://h:5433/d", False),
        ("postgresql://h/d", "postgresql://g/d", False),
        ("postgresql://h/d", "mysql://h/d", False),
        ("postgresql://a,b:5433/d", "postgresql:///d?host=b:5433&host=a", True),
        ("postgresql://h/d?schema=logs", "postgresql://h/d", False),
        ("postgresql://h/d?schema=logs", "postgresql://h/d?options=-csearch_path%3Dlogs", True),
        ("sqlite:///jobs.db", "sqlite:///other.db", False),
        ("sqlite:///jobs.db", "sqlite://", False),
    ],
)
def test_a_database_is_the_same_whoever_asks_for_it(one, other, same):
    """faults 57: neither the user, nor the options, nor a default that is written out make it
    another database.
    """
    assert (identity(parse(one)) == identity(parse(other))) is same
