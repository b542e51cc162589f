"""Web requests of Flask, Django and plain WSGI applications as jobs, behind a real server (R48)."""

import http.client
import re
import socketserver
import sys
import threading
import time
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import flask
import pytest
import structlog
from cli_support import python

import structjob
from structjob import wsgi
from structjob.exceptions import InvalidArgument

log = structlog.get_logger("app")


class Threaded(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Silent(WSGIRequestHandler):
    def log_message(self, *args):
        pass

    def get_stderr(self):
        return sys.__stderr__


@pytest.fixture
def serve():
    """Serve an application; return a function that asks it."""
    started = []

    def serve(app):
        server = make_server("127.0.0.1", 0, app, server_class=Threaded, handler_class=Silent)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        started.append(server)

        def ask(path, method="GET", **headers):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=given)
            response = connection.getresponse()
            response.text = response.read()
            connection.close()
            return response

        ask.port = server.server_port
        return ask

    yield serve
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def tracker(db_url):
    """A tracker opened without a loop, as a WSGI process has it."""
    structjob.configure(console=False, strict=True)
    with structjob.Tracker(db_url) as tracker:
        yield tracker


def job_of(tracker, response):
    """The job of a response; a server closes the response after the client has read it."""
    deadline = time.monotonic() + 10
    while True:
        job = tracker.run(tracker.jobs.get(response.headers["x-job-id"]))
        if job.status.terminal or time.monotonic() > deadline:
            return job
        time.sleep(0.01)


def flask_app(tracker=None, **options):
    app = flask.Flask(__name__)

    @app.route("/items/<int:n>", methods=["GET", "POST", "HEAD"])
    def item(n):
        log.info("item asked for", n=n)
        return {"job": structjob.current_job().id if structjob.current_job() else None}

    @app.route("/boom")
    def boom():
        raise ValueError("broken")

    @app.route("/stream")
    def stream():
        def parts():
            for n in range(3):
                log.info("part", n=n)
                yield f"{n}\n"

        return flask.Response(parts())

    @app.route("/health")
    def health():
        return "fine"

    app.wsgi_app = wsgi.JobMiddleware(app.wsgi_app, tracker, **options)
    return app


def test_flask(tracker, serve):
    """R48: a request is a job named by its rule, and its lines belong to it; a 500 is a failure by
    the exception that Flask logged, health checks and HEAD are no jobs, paths that fit no rule are
    one operation.
    """
    ask = serve(flask_app(tracker))
    response = ask("/items/7?token=x", X_Correlation_ID="web-42")
    job = job_of(tracker, response)
    assert (response.status, response.text) == (200, f'{{"job":"{job.id}"}}\n'.encode())
    assert (job.operation, job.status) == ("GET /items/<int:n>", "completed")
    assert job.correlation_id == response.headers["x-correlation-id"] == "web-42"
    assert job.metadata == {"method": "GET", "path": "/items/7", "client": "127.0.0.1"}
    assert (job.result["status"], job.result["bytes"]) == (200, len(response.text))
    assert job.result["response_ms"] > 0
    (event,) = tracker.run(tracker.logs.list(job_id=job.id, kind="log"))
    assert (event.message, event.attrs["n"]) == ("item asked for", 7)
    broken = ask("/boom")
    assert broken.status == 500
    job = job_of(tracker, broken)
    assert (job.operation, job.status, job.error.message) == ("GET /boom", "failed", "broken")
    (error,) = tracker.run(tracker.errors.list())
    assert (error.error.type, error.outcome, error.count) == ("ValueError", "final", 1)
    for path, method in (("/health", "GET"), ("/items/1", "HEAD"), ("/static/x.css", "GET")):
        response = ask(path, method)
        assert ("x-job-id" in response.headers, bool(response.headers["x-correlation-id"])) == (False, True)  # fmt: skip
    for number in range(5):
        job = job_of(tracker, ask(f"/x/{number}"))
        assert (job.operation, job.status) == ("GET <unmatched>", "completed")


def test_the_client_of_flask(tracker):
    """R50: a test of a Flask application asks without a server; buffered, the request ends at once,
    as the page says.
    """
    client = flask_app(tracker).test_client()
    for _ in range(2):
        response = client.get("/items/7", buffered=True)
        assert structjob.current_job() is None
        job = tracker.run(tracker.jobs.get(response.headers["x-job-id"]))
        assert (job.status, job.parent_job_id, job.result["bytes"]) == ("completed", None, len(response.data))  # fmt: skip


def test_a_streamed_response(tracker, serve):
    """R48: what is logged while the server iterates belongs to the job, which ends after it."""
    response = serve(flask_app(tracker))("/stream")
    job = job_of(tracker, response)
    assert (response.text, job.status, job.result["bytes"]) == (b"0\n1\n2\n", "completed", 6)
    found = tracker.run(tracker.logs.list(job_id=job.id, kind="log"))
    assert len(found) == 3


DJANGO = """
import asyncio, sys, threading, http.client, httpx, json
from wsgiref.simple_server import make_server
import django, structlog, structjob
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import include, path, re_path

structjob.configure(console=False)
tracker = structjob.init("sqlite:///jobs.db")
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)

def order(request, number):
    structlog.get_logger().info("order asked for", number=number)
    return JsonResponse({"share": 100 // int(number)})

urlpatterns = [
    path("shop/", include([path("orders/<int:number>/", order)])),
    re_path(r"^old/(?P<number>[0-9]+)$", order),
]
application = structjob.wsgi.JobMiddleware(get_wsgi_application())

server = make_server("127.0.0.1", 0, application)
threading.Thread(target=server.serve_forever, daemon=True).start()
for url in ("/shop/orders/7/", "/shop/orders/0/", "/old/5", "/nowhere"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", url)
    response = connection.getresponse()
    response.read()
    assert response.headers["X-Job-ID"], url
    connection.close()
server.shutdown()

async def by_asgi():
    transport = httpx.ASGITransport(structjob.asgi.JobMiddleware(get_asgi_application()))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for url in ("/old/6", "/old/0", "/nowhere"):
            assert (await client.get(url)).headers["X-Job-ID"], url

asyncio.run(by_asgi())
for job in reversed(tracker.run(tracker.jobs.list())):
    print(job.operation, job.status.value, job.result["status"], job.error and job.error.type)
print(len(tracker.run(tracker.logs.list(text="order asked for"))))
"""


def test_django(tmp_path):
    """R48: a Django project behind the WSGI or ASGI middleware: operations are its URL patterns,
    and errors the exceptions of its views.
    """
    done = python("-c", DJANGO, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "GET /shop/orders/<int:number>/ completed 200 None",
        "GET /shop/orders/<int:number>/ failed 500 ZeroDivisionError",
        "GET /old/(?P<number>[0-9]+)$ completed 200 None",
        "GET <unmatched> completed 404 None",
        "GET /old/(?P<number>[0-9]+)$ completed 200 None",
        "GET /old/(?P<number>[0-9]+)$ failed 500 ZeroDivisionError",
        "GET <unmatched> completed 404 None",
        "5",
    ]


@pytest.mark.parametrize("how", ["before", "while iterating", "in close", "5xx", "no routes"])
def test_a_plain_application(tracker, how):
    """Bad day: it raises before the headers, in the middle of the body or when it is closed; the
    server sees the same exception.
    """

    class Body:
        def __iter__(self):
            yield b"half"
            if how == "while iterating":
                raise RuntimeError(how)

        def close(self):
            if how == "in close":
                raise RuntimeError(how)

    def app(environ, start_response):
        if how == "before":
            raise RuntimeError(how)
        start_response("503 Busy" if how == "5xx" else "200 OK", [])
        return Body()

    middleware = wsgi.JobMiddleware(app, tracker, operation=lambda environ: None if how == "no routes" else "/it")  # fmt: skip
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/it/7"}
    started = []

    def ask():
        response = middleware(environ, lambda *given: started.append(given))
        try:
            assert b"".join(response) == b"half"
        finally:
            response.close()

    if how in ("5xx", "no routes"):
        ask()
    else:
        with pytest.raises(RuntimeError, match=how):
            ask()
    assert structjob.current_job() is None
    (job,) = tracker.run(tracker.jobs.list())
    assert job.operation == ("GET" if how == "no routes" else "GET /it")
    assert job.status == ("completed" if how == "no routes" else "failed")
    assert job.error is None or job.error.type == ("ResponseError" if how == "5xx" else "RuntimeError")  # fmt: skip


def test_a_client_that_leaves(tracker):
    """R48: a response that the server closes before its end makes the job cancelled, 499."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return iter([b"one", b"two"])

    response = wsgi.JobMiddleware(app, tracker)({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: None)  # fmt: skip
    next(response)
    response.close()
    (job,) = tracker.run(tracker.jobs.list())
    assert (job.status, job.result["status"], job.result["bytes"]) == ("cancelled", 499, 3)
    assert job.error.message == "the client left before the response was complete"
    assert not tracker.run(tracker.errors.list())


@pytest.mark.parametrize("read", [True, False])
def test_a_response_that_is_never_closed(tracker, read):
    """Bad day: a server drops a response without closing it, as WSGI requires: its job ends
    there, and the thread's next request is a job of its own.
    """

    def app(environ, start_response):
        start_response("200 OK", [])
        return iter([b"a", b"b"])

    ids = []

    def ask(path):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
        response = wsgi.JobMiddleware(app, tracker)(
            environ, lambda _, headers: ids.append(dict(headers)["x-job-id"])
        )
        for _ in response:
            if not read:
                break

    ask("/1")
    assert structjob.current_job() is None
    ask("/2")
    jobs = [tracker.run(tracker.jobs.get(job_id)) for job_id in ids]
    assert [job.status for job in jobs] == ["completed" if read else "cancelled"] * 2
    assert [job.parent_job_id for job in jobs] == [None, None]
    assert jobs[0].correlation_id != jobs[1].correlation_id


def test_what_is_believed_of_a_request(tracker, serve):
    """R22, R48: by default the correlation id and no parent; `trust="all"` inside one's network."""
    with tracker.job("theirs") as theirs:
        pass
    for trust in ("ids", "all"):
        ask = serve(flask_app(tracker, trust=trust))
        job = job_of(tracker, ask("/items/1", X_Job_ID=theirs.id, X_Request_ID="r-1"))
        assert job.correlation_id == "r-1"
        assert job.parent_job_id == (theirs.id if trust == "all" else None)


def test_without_a_tracker(serve):
    """Bad day: requests are served; two middlewares count once."""
    structjob.configure(console=False, strict=True)
    app = flask_app()
    app.wsgi_app = wsgi.JobMiddleware(app.wsgi_app)
    response = serve(app)("/items/1")
    assert (response.status, "x-job-id" in response.headers) == (200, False)
    assert len(response.headers.get_all("x-correlation-id")) == 1


def test_wrong_options_are_named():
    """A mistake is said where it is made."""
    for options, says in (({"jobs": 1}, "environ"), ({"operation": "x"}, "function"), ({"tracker": "x"}, "Tracker")):  # fmt: skip
        with pytest.raises(InvalidArgument, match=says):
            wsgi.JobMiddleware(None, **options)


@pytest.mark.slow
def test_the_program_of_the_documentation_runs(tmp_path):
    """R51: the page's program answers as it stands, and its command finds the job."""
    page = (Path(__file__).parent.parent / "docs/integrations/wsgi.md").read_text("utf-8")
    (program,) = re.findall(r"<!-- app.py -->\n```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "app.py").write_text(program)
    ask = "import app; c = app.app.test_client(); r = c.get('/orders/7'); print(r.json, 'X-Job-ID' in r.headers)"
    done = python("-c", ask, cwd=tmp_path)
    assert done.stdout == "{'order': 7} True\n", done.stderr
    shown = python("-m", "structjob", "jobs", "--db", "jobs.db", cwd=tmp_path)
    assert "GET /orders/<int:number>" in shown.stdout


def test_a_stream_has_no_length(tracker):
    """R48: waitress asks each response that has the method, and answered each stream with 500."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return iter([b"a", b"b"]) if environ["PATH_INFO"] == "/stream" else [b"ab"]

    responses = {}
    for path in ("/stream", "/whole"):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
        response = responses[path] = wsgi.JobMiddleware(app, tracker)(environ, lambda *_: None)
        assert b"".join(response) == b"ab"
        response.close()
    assert not hasattr(responses["/stream"], "__len__")
    assert len(responses["/whole"]) == 1
