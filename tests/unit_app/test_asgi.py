"""`Drainable` for ASGI, with an application's and a server's side made up."""

import asyncio
import json

import pytest

from unit_app.asgi import Drainable


async def hello(scope, receive, send):
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"Connection", b"keep-alive"), (b"a", b"b")]}
    )
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def call(app, path="/x", kind="http", messages=(), **scope):
    """The messages that the server gets."""
    sent = []
    coming = iter(messages)
    scope = {
        "type": kind, "method": "GET", "path": path, "headers": [], "client": ("127.0.0.1", 5), "http_version": "1.1",
        **scope,
    }  # fmt: skip

    async def receive():
        return next(coming, {"type": "http.request", "body": b"", "more_body": False})

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def test_the_connection_is_left_alone_before_the_flag():
    assert call(Drainable(hello))[0]["headers"] == [(b"Connection", b"keep-alive"), (b"a", b"b")]


@pytest.mark.parametrize(("version", "closes"), [("1.0", True), ("1.1", True), ("2", False), ("3", False)])
def test_an_answer_after_the_flag_says_close_where_that_is_allowed(version, closes):
    async def app(scope, receive, send):
        drainable.flag.set()
        await hello(scope, receive, send)

    drainable = Drainable(app)
    headers = call(drainable, http_version=version)[0]["headers"]
    assert ((b"connection", b"close") in headers) is closes
    assert ((b"Connection", b"keep-alive") in headers) is not closes
    refused = call(drainable, http_version=version)
    assert refused[0]["status"] == 503
    assert ((b"connection", b"close") in refused[0]["headers"]) is closes
    assert ((b"retry-after", b"1")) in refused[0]["headers"]


def test_a_refused_body_is_read_until_its_end():
    drainable = Drainable(hello)
    drainable.flag.set()
    parts = iter(
        [{"type": "http.request", "body": b"x", "more_body": True}] * 3 + [{"type": "http.request", "body": b""}]
    )
    sent = call(drainable, messages=parts)
    assert next(parts, None) is None
    assert json.loads(sent[1]["body"])["status"] == 503
    assert [message.get("more_body", False) for message in sent[1:]] == [True, False]


def test_a_refused_client_that_goes_does_no_harm():
    drainable = Drainable(hello)
    drainable.flag.set()
    assert call(drainable, messages=[{"type": "http.disconnect"}])[0]["status"] == 503


def test_background_work_counts_until_the_application_returns():
    seen = []

    async def app(scope, receive, send):
        await hello(scope, receive, send)
        seen.append(drainable.flag.in_flight())

    drainable = Drainable(app)
    call(drainable)
    assert (seen, drainable.flag.in_flight()) == ([1], 0)


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_an_error_of_the_application_goes_on_and_is_counted_out(error, kind):
    async def app(scope, receive, send):
        raise error

    drainable = Drainable(app)
    with pytest.raises(error):
        call(drainable, kind=kind)
    assert drainable.flag.in_flight() == 0


def test_paths_are_found_below_a_root_path_and_head_has_no_body():
    drainable = Drainable(hello)
    sent = call(drainable, "/api/-/in-flight", root_path="/api")
    assert json.loads(sent[1]["body"])["in_flight"] == 0
    assert call(drainable, "/-/in-flight", method="HEAD")[1]["body"] == b""
    assert call(drainable, "/-/other")[1]["body"] == b"/-/other"


def test_without_a_client_address_orders_are_refused():
    for client in (None, ("", 0), ("testclient", 50000)):
        assert call(Drainable(hello), "/-/drain", method="POST", client=client)[0]["status"] == 403


def test_a_websocket_is_refused_before_it_is_accepted():
    drainable = Drainable(hello)
    drainable.flag.set()
    connect = [{"type": "websocket.connect"}]
    assert call(drainable, kind="websocket", messages=connect) == [
        {"type": "websocket.close", "code": 1012, "reason": "draining"}
    ]
    sent = call(drainable, kind="websocket", messages=connect, extensions={"websocket.http.response": {}})
    assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 503)


@pytest.mark.parametrize("answer", [True, False, 0, "yes", None, ValueError("down")])
@pytest.mark.parametrize("is_async", [True, False])
def test_checks_may_be_functions_or_coroutine_functions(answer, is_async):
    def check():
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def slow_check():
        return check()

    drainable = Drainable(hello, live=slow_check if is_async else check)
    wanted = 200 if answer in (True, "yes") else 503
    assert call(drainable, "/-/health/live")[0]["status"] == wanted
    assert call(drainable, "/-/health/ready")[0]["status"] == 200
