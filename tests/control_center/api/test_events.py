"""Answers without an end: events and logs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from control_center.api.events import FOLLOWERS
from control_center.errors import NodeRefused, NodeUnreachable, StoreError

from .site import Site, center, until


async def parsed(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[int, str, dict[str, object]]]:
    """The events of a stream: id, type, data."""
    fields: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "id" in fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


async def test_events_that_are_kept_are_told_from_the_beginning(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        for number in range(450):  # more than are read at a time
            await site.store.add_event("node", {"number": number})
        async with site.session.get(f"{site.url}/v1/events?follow=0") as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            events = [event async for event in parsed(response)]
        assert [seq for seq, _, _ in events] == list(range(1, 451))
        assert events[-1][1] == "node" and events[-1][2]["body"] == {"number": 449}


async def test_events_are_told_as_they_happen(tmp_path: Path) -> None:
    async with center(tmp_path) as site, site.session.get(f"{site.url}/v1/events") as response:
        events = parsed(response)
        for number in range(3):
            await site.store.add_event("mode", {"number": number})
            async with asyncio.timeout(10):
                seq, kind, event = await anext(events)
            assert (seq, kind, event["body"]) == (number + 1, "mode", {"number": number})


async def test_who_was_cut_off_resumes_where_it_was(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        for number in range(5):
            await site.store.add_event("node", {"number": number})
        for path, headers in (("&since=3", {}), ("", {"Last-Event-ID": "3"}), ("&since=1", {"Last-Event-ID": "3"})):
            answer = await site.get(f"/v1/events?follow=0{path}", **headers)
            assert answer.body.count(b"\nid: ") == 2 and b"id: 4\n" in answer.body, path


async def test_a_last_event_that_is_no_number_is_refused(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        answer = await site.get("/v1/events?follow=0", **{"Last-Event-ID": "latest"})
        assert (answer.status, answer.code) == (400, "bad_request")
        assert (await site.get("/v1/events?since=-1")).code == "bad_request"


async def test_silence_is_filled_with_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_center.api.events.PING_SECONDS", 0.05)
    async with center(tmp_path) as site, site.session.get(f"{site.url}/v1/events") as response:
        async with asyncio.timeout(10):
            while await response.content.readline() != b": ping\n":
                pass


async def test_a_store_that_is_away_is_a_problem_and_not_an_empty_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with center(tmp_path) as site:

        async def fail(since: int, limit: int) -> None:
            raise StoreError("cannot ask the store")

        monkeypatch.setattr(site.store, "events", fail)
        assert (await site.get("/v1/events")).code == "store_away"


def followers(site: Site) -> int:
    """How many the center thinks are following its events."""
    return len(site.store._database.changes._waiters.get("events", ()))


async def test_a_follower_that_goes_is_forgotten(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        response = await site.session.get(f"{site.url}/v1/events")
        await until(lambda: followers(site) == 1)
        response.close()
        await until(lambda: followers(site) == 0)


async def test_a_follower_that_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_center.api.events.SLOW_SECONDS", 0.1)
    async with center(tmp_path) as site:
        for _ in range(200):
            await site.store.add_event("node", {"detail": "x" * 100_000})
        reader, writer = await asyncio.open_connection(*site.serving.address, limit=1)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        followed = site.serving._runner.app[FOLLOWERS]
        await until(lambda: len(followed) == 1)
        await until(lambda: not followed)  # nothing is read meanwhile
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(10):
                await reader.readexactly(200 * 100_000)
        writer.close()


async def test_too_many_followers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_center.api.events.MAX_FOLLOWERS", 2)
    async with center(tmp_path) as site:
        responses = [await site.session.get(f"{site.url}/v1/events") for _ in range(2)]
        answer = await site.get("/v1/events")
        assert (answer.status, answer.code) == (503, "busy")
        for response in responses:
            response.close()
        await until(lambda: followers(site) == 0)
        assert (await site.get("/v1/events?follow=0")).status == 200


# Logs.


async def test_a_log_is_passed_on_as_it_is_written(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        queue = site.nodes.written["web-1"] = asyncio.Queue()
        path = f"{site.url}/v1/nodes/web-1/units/cart:0/logs?stream=stderr&lines=5&follow=1"
        queue.put_nowait(b"first\n")
        async with asyncio.timeout(10), site.session.get(path) as response:
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            for line in (b"first\n", b"second\n", b"\xff\n"):
                if line != b"first\n":
                    queue.put_nowait(line)
                assert await response.content.readline() == line
            queue.put_nowait(None)
            assert await response.content.read() == b""
        assert site.nodes.asked == ["/v1/units/cart%3A0/logs?stream=stderr&lines=5&follow=1"]
        assert site.nodes.listening == 0


async def test_a_log_that_is_silent_answers_nevertheless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_center.api.events.FIRST_SECONDS", 0.05)
    async with center(tmp_path) as site:
        queue = site.nodes.written["web-1"] = asyncio.Queue()
        path = f"{site.url}/v1/nodes/web-1/units/cart:0/logs?follow=1"
        async with asyncio.timeout(10), site.session.get(path) as response:
            queue.put_nowait(b"at last\n")
            assert await response.content.readline() == b"at last\n"


async def test_a_log_is_not_read_on_when_its_reader_has_gone(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        queue = site.nodes.written["web-1"] = asyncio.Queue()
        queue.put_nowait(b"first\n")
        response = await site.session.get(f"{site.url}/v1/nodes/web-1/units/cart:0/logs?follow=1")
        await until(lambda: site.nodes.listening == 1)
        response.close()
        await until(lambda: site.nodes.listening == 0)


async def test_a_node_that_cannot_be_asked_is_a_problem(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        path = "/v1/nodes/web-1/units/cart:0/logs"
        assert (await site.get(path)).code == "node_unreachable"
        queue = site.nodes.written["web-1"] = asyncio.Queue()
        queue.put_nowait(NodeRefused("web-1", 404, "unknown_unit", "no unit is called cart:0"))
        answer = await site.get(path)
        assert (answer.status, answer.code) == (404, "unknown_unit")
        site.nodes.pulling.add("web-1")
        answer = await site.get(path)
        assert (answer.status, answer.code) == (502, "node_unreachable")
        for query in ("stream=stdin", "lines=-1", "lines=10001", "follow=maybe", "tail=5"):
            assert (await site.get(f"{path}?{query}")).code == "bad_request", query


async def test_a_log_that_breaks_off_is_not_taken_for_all_of_it(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        queue = site.nodes.written["web-1"] = asyncio.Queue()
        queue.put_nowait(b"first\n")
        async with site.session.get(f"{site.url}/v1/nodes/web-1/units/cart:0/logs?follow=1") as response:
            assert await response.content.readline() == b"first\n"
            queue.put_nowait(NodeUnreachable("web-1", "it closed the connection"))
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
