"""`Drainable` for WSGI, with an application's and a server's side made up."""

import ast
import io
import json
import subprocess
import sys
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import pytest

import unit_app
from unit_app.wsgi import Drainable


class Answer:
    """What a server is told; the name `force_close` is gunicorn's."""

    status, headers, closes = "", (), False

    def start_response(self, status, headers, exc_info=None):
        self.status, self.headers = status, headers

    def force_close(self):
        self.closes = True


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def call(app, path="/x", **more):
    answer = Answer()
    environ = {
        "PATH_INFO": path, "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": io.BytesIO(), **more,
    }  # fmt: skip
    return answer, app(environ, answer.start_response)


def test_an_answer_counts_until_it_is_closed_and_its_body_is_closed_too():
    class Body:
        closed = 0

        def __iter__(self):
            return iter([b"x"])

        def close(self):
            self.closed += 1

    made = Body()
    drainable = Drainable(lambda environ, start: made)
    _, body = call(drainable)
    assert list(body) == [b"x"]
    assert drainable.flag.in_flight() == 1
    body.close()
    assert (drainable.flag.in_flight(), made.closed) == (0, 1)


def test_an_answer_that_is_never_closed_is_counted_out_when_it_is_forgotten():
    drainable = Drainable(hello)
    _, body = call(drainable)
    assert drainable.flag.in_flight() == 1
    del body
    assert drainable.flag.in_flight() == 0


def test_errors_of_the_application_go_on_and_are_counted_out():
    def fails(environ, start_response):
        raise KeyError("x")

    class Body(list):
        def close(self):
            raise OSError

    drainable = Drainable(fails)
    with pytest.raises(KeyError):
        call(drainable)
    assert drainable.flag.in_flight() == 0
    drainable = Drainable(lambda environ, start: Body())
    _, body = call(drainable)
    with pytest.raises(OSError):
        body.close()
    assert drainable.flag.in_flight() == 0


def test_each_server_is_told_in_its_own_way_to_close_the_connection():
    def app(environ, start_response):
        drainable.flag.set()
        return hello(environ, start_response)

    drainable = Drainable(app)
    answer, _ = call(drainable)
    assert answer.closes and answer.headers == [("Content-Type", "text/plain")]
    answer, _ = call(drainable)
    assert answer.closes and answer.status == "503 Service Unavailable"
    answer, _ = call(drainable, SERVER_PROTOCOL="HTTP/2.0")
    assert not answer.closes
    Answer.force_close, kept = None, Answer.force_close
    try:
        answer, _ = call(drainable, **{"uwsgi.version": b"2"})
        assert ("Connection", "close") in answer.headers
        answer, _ = call(drainable)  # unknown: many servers fail when they get the header
        assert "Connection" not in dict(answer.headers)
    finally:
        Answer.force_close = kept


def test_a_refused_body_is_read():
    drainable = Drainable(hello)
    drainable.flag.set()
    body = io.BytesIO(b"x" * 1000)
    call(drainable, **{"wsgi.input": body, "CONTENT_LENGTH": "600"})
    assert body.tell() == 600
    call(drainable, **{"wsgi.input": body, "wsgi.input_terminated": True})
    assert body.tell() == 1000
    answer, _ = call(drainable, CONTENT_LENGTH="no number")
    assert answer.status.startswith("503")


def test_it_keeps_to_the_specification_of_wsgi():
    class Quiet(WSGIRequestHandler):
        def log_message(self, *args):
            pass

    drainable = Drainable(validator(hello))
    with make_server("127.0.0.1", 0, validator(drainable), handler_class=Quiet) as server:
        script = f"""
import http.client, json
def ask(method, path):
    c = http.client.HTTPConnection("127.0.0.1", {server.server_port}); c.request(method, path); a = c.getresponse()
    return a.status, a.read()
assert ask("GET", "/x") == (200, b"hello")
assert ask("POST", "/-/drain")[0] == 202
assert ask("GET", "/x")[0] == 503
assert json.loads(ask("GET", "/-/in-flight")[1])["in_flight"] == 0
"""
        server.timeout = 5
        with subprocess.Popen([sys.executable, "-c", script]) as client:
            for _ in range(4):
                server.handle_request()
            assert client.wait(10) == 0


def test_orders_through_a_unix_socket_need_a_token():
    assert call(Drainable(hello), "/-/drain", REQUEST_METHOD="POST", REMOTE_ADDR="")[0].status.startswith("403")
    _, body = call(
        Drainable(hello, token="t"), "/-/drain", REQUEST_METHOD="POST", REMOTE_ADDR="", HTTP_X_UNIT_TOKEN="t"
    )
    assert json.loads(b"".join(body))["draining"]


def test_a_check_that_fails_is_a_no():
    def broken():
        raise OSError("no database")

    drainable = Drainable(hello, ready=broken)
    assert call(drainable, "/-/health/ready")[0].status.startswith("503")
    assert call(drainable, "/-/health/live")[0].status.startswith("200")


def test_it_needs_neither_asyncio_nor_anything_of_the_daemon():
    script = (
        "import sys, unit_app.wsgi; print([m for m in ('asyncio', 'supervisor', 'ssl', 'h11') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_services_on_python_3_9_can_use_it():
    for path in Path(unit_app.__file__).parent.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))
