"""Channels to nodes that fetch their commands: their answers come from the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import pytest

from control_center import channels as channels_module
from control_center.channels import Channels
from control_center.errors import NodeRefused, NodeUnreachable
from control_center.store import Store
from tests.control_center.answering_node import ACCEPTED, COMMAND, channels_to, node_entry_at
from tests.supervisor.running import run


@asynccontextmanager
async def _fetching(tmp_path: Path, **spec: Any) -> AsyncIterator[tuple[Store, Channels]]:
    store = await Store.open(f"sqlite:///{tmp_path / 'center.sqlite'}")
    try:
        async with channels_to(lambda: node_entry_at(1, via="pull"), store, **spec) as channels:
            yield store, channels
    finally:
        await store.close()


def test_the_answer_of_a_node_that_fetches_comes_from_the_store(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _fetching(tmp_path) as (store, channels):
            assert channels.via("n") == "pull"
            sending = asyncio.create_task(channels.send("n", COMMAND))
            await store.put_result("n", "another", 202, {"operations": []})
            await store.put_result("n", "c-1", 202, ACCEPTED)
            answer = await sending
            assert (answer.status, answer.body) == (202, ACCEPTED)

    run(scenario())


def test_a_no_of_a_node_that_fetches_is_a_no(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _fetching(tmp_path) as (store, channels):
            await store.put_result("n", "c-1", 412, {"code": "generation_moved", "detail": "it is 3"})
            with pytest.raises(NodeRefused) as caught:
                await channels.send("n", COMMAND)
            assert (caught.value.status, caught.value.code) == (412, "generation_moved")

    run(scenario())


def test_a_node_that_does_not_fetch_in_time_may_fetch_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels_module, "PULL_SECONDS", 0.2)

    async def scenario() -> None:
        async with _fetching(tmp_path, timeout_seconds=0.1) as (_, channels):
            with pytest.raises(NodeUnreachable, match=r"has not answered within 0\.2 s") as caught:
                await channels.send("n", COMMAND)
            assert caught.value.may_have_counted

    run(scenario())


def test_operations_of_a_node_that_fetches_are_awaited_until_all_have_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _fetching(tmp_path) as (store, channels):
            await store.put_result("n", "c-1", 202, ACCEPTED)
            assert await channels.operations("n", "c-1", 0) == ACCEPTED["operations"]
            assert await channels.operations("n", "c-1", 0.1) == ACCEPTED["operations"]
            waiting = asyncio.create_task(channels.operations("n", "c-1", 10))
            done = [{"id": "op-1", "state": "succeeded"}]
            await store.put_result("n", "c-1", 202, {"operations": done})
            assert await waiting == done

    run(scenario())


def test_a_node_that_fetches_is_known_by_its_last_heartbeat(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _fetching(tmp_path, heartbeat_seconds=1.0) as (store, channels):
            with pytest.raises(NodeUnreachable, match="has not been heard of"):
                await channels.get("n", "/v1/units")
            body = {"node": "n", "units": 1, "statuses": [{"unit": "a/b", "state": "RUNNING"}]}
            await store.put_heartbeat("n", body, time())
            units = await channels.get("n", "/v1/units?names=x")
            assert units["units"] == body["statuses"] and units["as_of"].endswith("Z")
            assert (await channels.get("n", "/v1/units/a%2Fb"))["state"] == "RUNNING"
            assert (await channels.get("n", "/v1/node"))["units"] == 1
            assert (await channels.heartbeat("n"))["node"] == "n"
            with pytest.raises(NodeRefused, match="no unit is called c"):
                await channels.get("n", "/v1/units/c")
            with pytest.raises(NodeUnreachable, match="tells no /v1/doctor"):
                await channels.get("n", "/v1/doctor")
            await store.put_heartbeat("n", body, time() - 60)
            with pytest.raises(NodeUnreachable, match="has not been heard of"):
                await channels.get("n", "/v1/node")

    run(scenario())


def test_what_a_node_that_fetches_cannot_be_asked_is_unreachable(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with _fetching(tmp_path) as (_, channels):
            with pytest.raises(NodeUnreachable, match="shows no logs"):
                await channels.stream("n", "/v1/units/a/logs").open()
            with pytest.raises(NodeUnreachable, match="cannot be told to abort"):
                await channels.abort("n", "op-1")

    run(scenario())
