"""Channels to nodes: what comes back from whatever answers at a node's address."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from control_center.errors import NodeRefused, NodeUnreachable
from control_center.node_client import MAX_ANSWER_BYTES
from tests.control_center.answering_node import (
    ACCEPTED,
    COMMAND,
    Serve,
    answering_node,
    channels_to,
    hang_up,
    http_answer,
    node_entry_at,
    say_nothing,
    stop_in_the_middle,
)  # fmt: skip
from tests.supervisor.running import run, until


def _send(*answers: bytes | Serve, **spec: Any) -> Any:
    """What comes of sending a command to something that answers so."""

    async def scenario() -> Any:
        async with answering_node(*answers, **spec) as (_, channels):
            try:
                return await channels.send("n", COMMAND)
            except (NodeUnreachable, NodeRefused) as error:
                return error

    return run(scenario())


# Pushed: answers.


def test_a_command_is_posted_with_its_body_and_its_202_comes_back() -> None:
    async def scenario() -> None:
        async with answering_node(http_answer(202, ACCEPTED)) as (node, channels):
            answer = await channels.send("n", COMMAND)
            assert (answer.status, answer.body) == (202, ACCEPTED)
            head, _, body = node.requests[0].partition(b"\r\n\r\n")
            assert head.startswith(b"POST /v1/units/web/restart HTTP/1.1\r\n")
            assert json.loads(body) == COMMAND.body

    run(scenario())


def test_a_path_arrives_as_it_was_written() -> None:
    async def scenario() -> None:
        async with answering_node(http_answer(200, {})) as (node, channels):
            await channels.get("n", "/v1/units/a%2Fb:0/why?x=%26&y=1")
            assert node.requests[0].startswith(b"GET /v1/units/a%2Fb:0/why?x=%26&y=1 HTTP/1.1\r\n")

    run(scenario())


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "bad_request"), (401, "unauthenticated"), (403, "forbidden"), (404, "unknown_unit"), (409, "stale_epoch"),
     (410, "deadline_passed"), (412, "generation_moved"), (422, "replayed")],
)  # fmt: skip
def test_a_definite_no_carries_its_status_its_code_and_its_words(status: int, code: str) -> None:
    error = _send(http_answer(status, {"status": status, "code": code, "detail": "no, since"}))
    assert isinstance(error, NodeRefused)
    assert (error.node, error.status, error.code, error.detail) == ("n", status, code, "no, since")


def test_a_no_of_a_node_that_knows_no_codes_gets_one() -> None:
    error = _send(http_answer(404, {"status": 404, "detail": "no unit is called web"}))
    assert isinstance(error, NodeRefused) and error.code == "not_found"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http_answer(500, {"detail": "broken", "code": "internal"}), "it answered 500: broken"),
        (http_answer(502, body=b"<html>"), "without saying why"),
        (http_answer(404, body=b"<html>nginx</html>"), "without saying why"),
        (http_answer(429, {"detail": "slower"}), "it answered 429: slower"),
        (http_answer(202, body=b"{"), "not JSON"),
        (http_answer(202, body=b"\xff\xfe"), "not JSON"),
        (http_answer(202, [1]), "no JSON object"),
        (http_answer(202, body=b"[" * 100_000), "not JSON"),
        (
            http_answer(307, {}, Location="http://127.0.0.1:1/"),
            "a redirect to http://127.0.0.1:1/, which is not followed",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 202 X\r\nContent-Length: x\r\n\r\n", "not HTTP"),
        (hang_up, "closed the connection"),
        (stop_in_the_middle, "closed the connection in the middle of its answer"),
    ],
)
def test_whatever_is_no_answer_may_have_counted(answer: bytes | Serve, words: str) -> None:
    error = _send(answer)
    assert isinstance(error, NodeUnreachable), error
    assert words in error.reason
    assert error.may_have_counted


def test_a_node_that_shuts_down_has_certainly_not_taken_it() -> None:
    error = _send(http_answer(503, {"detail": "unitd is shutting down", "code": "shutting_down"}))
    assert isinstance(error, NodeUnreachable) and not error.may_have_counted


def test_a_huge_answer_is_not_read_to_its_end() -> None:
    written = 0

    async def pour(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 202 X\r\nContent-Length: 100000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" " * 65536)
            written += 65536
            await writer.drain()

    error = _send(pour)
    assert isinstance(error, NodeUnreachable) and f"more than {MAX_ANSWER_BYTES} bytes" in error.reason
    assert written < 3 * MAX_ANSWER_BYTES


def test_an_answer_may_be_as_large_as_that() -> None:
    filler = "x" * (MAX_ANSWER_BYTES - 100)
    assert len(_send(http_answer(202, {"filler": filler})).body["filler"]) == len(filler)


def test_an_answer_that_does_not_come_may_have_counted() -> None:
    error = _send(say_nothing, timeout_seconds=0.3)
    assert isinstance(error, NodeUnreachable) and error.may_have_counted
    assert error.reason == "it has not answered within 0.3 s"


def test_a_connection_that_is_not_made_has_certainly_not_counted() -> None:
    async def scenario() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            async with channels_to(lambda: node_entry_at(port), timeout_seconds=0.3) as channels:
                with pytest.raises(NodeUnreachable, match="no connection within") as caught:
                    await channels.send("n", COMMAND)
                assert not caught.value.may_have_counted
            for filler in fillers:
                filler.close()

    run(scenario())


def test_a_refused_connection_has_certainly_not_counted() -> None:
    async def scenario() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with channels_to(lambda: node_entry_at(unused.getsockname()[1])) as channels:
                with pytest.raises(NodeUnreachable, match="connection refused") as caught:
                    await channels.send("n", COMMAND)
                assert not caught.value.may_have_counted

    run(scenario())


def test_a_name_that_nobody_knows_has_certainly_not_counted() -> None:
    async def scenario() -> None:
        async with channels_to(lambda: node_entry_at(1, "no-such-host.invalid", scheme="https")) as channels:
            with pytest.raises(NodeUnreachable, match=r"cannot find the host no-such-host\.invalid") as caught:
                await channels.send("n", COMMAND)
            assert not caught.value.may_have_counted

    run(scenario())


# Pushed: addresses and connections.


def test_a_node_without_an_entry_is_unreachable() -> None:
    async def scenario() -> None:
        async with channels_to(lambda: None) as channels:
            with pytest.raises(NodeUnreachable, match="it has no entry in the registry") as caught:
                await channels.heartbeat("n")
            assert not caught.value.may_have_counted
            assert channels.via("n") == "push"

    run(scenario())


def test_a_node_that_has_moved_is_found_at_its_new_address() -> None:
    async def scenario() -> None:
        async with (
            answering_node(http_answer(202, ACCEPTED)) as (first, channels),
            answering_node(http_answer(202, ACCEPTED)) as (second, _),
        ):
            await channels.send("n", COMMAND)
            first.port = second.port  # what its entry says from now on
            await channels.send("n", COMMAND)
            assert (len(first.requests), len(second.requests)) == (1, 1)

    run(scenario())


def test_a_connection_serves_many_calls() -> None:
    async def scenario() -> None:
        async with answering_node(http_answer(200, {"node": "n"})) as (node, channels):
            for _ in range(5):
                await channels.heartbeat("n")
            assert (node.connections, len(node.requests)) == (1, 5)

    run(scenario())


def test_a_connection_that_the_node_has_closed_meanwhile_costs_nothing() -> None:
    async def scenario() -> None:
        async with answering_node(http_answer(200, {"node": "n"}), hang_up, http_answer(202, ACCEPTED)) as (
            node,
            channels,
        ):
            await channels.heartbeat("n")
            assert (await channels.send("n", COMMAND)).status == 202
            assert node.connections == 2

    run(scenario())


def test_a_new_connection_that_is_closed_is_not_tried_again() -> None:
    async def scenario() -> None:
        async with answering_node(hang_up) as (node, channels):
            with pytest.raises(NodeUnreachable):
                await channels.send("n", COMMAND)
            assert node.connections == 1

    run(scenario())


def test_no_more_calls_than_allowed_are_under_way_and_heartbeats_do_not_wait_for_them() -> None:
    async def scenario() -> None:
        free = asyncio.Event()
        busy = most = 0

        async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
            nonlocal busy, most
            if request.startswith(b"GET /v1/node "):
                writer.write(http_answer(200, {"node": "n"}))
                return
            busy, most = busy + 1, max(most, busy + 1)
            await free.wait()
            busy -= 1
            writer.write(http_answer(202, ACCEPTED))

        async with answering_node(answer, parallel=3) as (_, channels):
            calls = [asyncio.create_task(channels.send("n", COMMAND)) for _ in range(10)]
            await until(lambda: busy == 3)
            assert await channels.heartbeat("n") == {"node": "n"}
            free.set()
            assert {answer.status for answer in await asyncio.gather(*calls)} == {202}
            assert most == 3

    run(scenario())


def test_long_polls_take_no_place_of_calls() -> None:
    async def scenario() -> None:
        async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
            if b"wait=" not in request:
                writer.write(http_answer(202, ACCEPTED))

        async with answering_node(answer, parallel=1, timeout_seconds=2.0) as (node, channels):
            waiting = [asyncio.create_task(channels.operations("n", f"c/{number}", 10.0)) for number in range(5)]
            await until(lambda: len(node.requests) == 5)
            assert (await channels.send("n", COMMAND)).status == 202
            assert b"command_id=c%2F0&wait=10" in b"".join(node.requests)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    run(scenario())


def test_of_a_call_that_was_cancelled_nothing_is_sent_afterwards() -> None:
    async def scenario() -> None:
        async with answering_node(say_nothing, parallel=1) as (node, channels):
            first = asyncio.create_task(channels.send("n", COMMAND))
            await until(lambda: node.requests)
            second = asyncio.create_task(channels.send("n", COMMAND))
            await asyncio.sleep(0)
            for task in (second, first):
                task.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            await until(lambda: node.ended == 1, "the connection is closed")
            node.answers = [http_answer(200, {"node": "n"})]
            await channels.heartbeat("n")
            assert [request.split(b" ")[0] for request in node.requests] == [b"POST", b"GET"]

    run(scenario())


def test_operations_must_be_a_list_of_objects() -> None:
    async def scenario() -> None:
        async with answering_node(http_answer(200, ACCEPTED), http_answer(200, {"operations": [1]})) as (_, channels):
            assert await channels.operations("n", "c-1", 0) == ACCEPTED["operations"]
            with pytest.raises(NodeUnreachable, match="told of no operations"):
                await channels.operations("n", "c-1", 0)

    run(scenario())


# Credentials.


def test_the_token_is_read_again_when_its_file_has_changed_and_kept_when_it_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")

    async def scenario() -> list[bytes]:
        async with answering_node(http_answer(200, {}), token_file=str(file)) as (node, channels):
            await channels.heartbeat("n")
            file.write_text("another\n")
            await channels.heartbeat("n")
            file.unlink()
            await channels.heartbeat("n")
            return node.requests

    requests = run(scenario())
    assert [b"Bearer one\r\n" in each for each in requests] == [True, False, False]
    assert [b"Bearer another\r\n" in each for each in requests] == [False, True, True]


def test_without_a_token_that_can_be_read_nothing_is_sent(tmp_path: Path) -> None:
    error = _send(http_answer(202, ACCEPTED), token_file=str(tmp_path / "none"))
    assert isinstance(error, NodeUnreachable) and not error.may_have_counted
    assert f"cannot read {tmp_path / 'none'}" in error.reason


@pytest.mark.parametrize("address", ["192.0.2.7", "127.evil.example", "2001:db8::7"])
def test_beyond_loopback_nothing_is_sent_in_the_clear(address: str) -> None:
    async def scenario() -> None:
        for metadata in ({}, {"scheme": "http"}, {"scheme": "HTTPS"}):
            async with channels_to(lambda metadata=metadata: node_entry_at(9301, address, **metadata)) as channels:  # type: ignore[misc]
                with pytest.raises(NodeUnreachable, match="only https is spoken") as caught:
                    await channels.send("n", COMMAND)
                assert not caught.value.may_have_counted

    run(scenario())
