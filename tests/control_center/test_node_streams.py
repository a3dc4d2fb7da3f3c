"""Logs of nodes as they are written."""

from __future__ import annotations

import asyncio

import pytest

from control_center.errors import NodeRefused, NodeUnreachable
from tests.control_center.answering_node import answering_node, http_answer, stop_in_the_middle
from tests.supervisor.running import run, until


def test_a_log_arrives_as_it_is_written() -> None:
    async def scenario() -> None:
        more = asyncio.Event()

        async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
            await more.wait()
            writer.write(b"4\r\ntwo\n\r\n0\r\n\r\n")

        async with answering_node(answer) as (_, channels):
            stream = channels.stream("n", "/v1/units/web/logs?follow=1")
            await stream.open()
            assert await anext(stream) == b"one\n"
            more.set()
            assert [chunk async for chunk in stream] == [b"two\n"]
            await stream.aclose()

    run(scenario())


def test_a_log_that_nobody_follows_any_more_is_closed() -> None:
    async def scenario() -> None:
        async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")

        async with answering_node(answer) as (node, channels):
            stream = channels.stream("n", "/v1/units/web/logs?follow=1")
            assert await anext(stream) == b"one\n"
            await stream.aclose()
            await until(lambda: node.ended == 1)

    run(scenario())


def test_a_log_that_there_is_not_is_refused_at_once() -> None:
    async def scenario() -> None:
        async with answering_node(http_answer(404, {"detail": "no unit is called x", "code": "unknown_unit"})) as (
            _,
            channels,
        ):
            with pytest.raises(NodeRefused, match="no unit is called x"):
                await channels.stream("n", "/v1/units/x/logs").open()

    run(scenario())


def test_a_log_whose_node_dies_says_so() -> None:
    async def scenario() -> None:
        async with answering_node(stop_in_the_middle) as (_, channels):
            with pytest.raises(NodeUnreachable, match="in the middle"):
                _ = [chunk async for chunk in channels.stream("n", "/v1/units/x/logs")]

    run(scenario())
