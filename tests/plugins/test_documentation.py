"""The page that tells strangers how to write a probe kind: its example runs, and the names in it exist."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from supervisor import plugin_api
from supervisor.plugin_api import OptionError, ProbeResult, Target
from tests.supervisor.host.answering import answering, closed_port, open_sockets, until_it_hangs_up
from tests.supervisor.running import run

PAGE = (Path(__file__).parents[2] / "docs/how-to/probe-plugin.md").read_text()


def example() -> Any:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "unitd_memcached.py", "exec"), names)
    return names["Memcached"]


def target(port: int | None) -> Target:
    return Target("cache", 1, 1, "127.0.0.1", port)


async def memcached(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await reader.readline() == b"version\r\n"
    writer.write(b"VERSION 1.6.38\r\n")
    await writer.drain()


def test_the_example_works() -> None:
    async def scenario() -> None:
        async with answering(memcached) as server:
            before = open_sockets()
            assert (await example()(True).check(target(server.port), 10)).ok
            assert (await example()({"port": str(server.port)}).check(target(None), 10)).ok
            await server.all_gone()
            assert open_sockets() <= before
        async with answering(until_it_hangs_up) as server:
            late = await example()(True).check(target(server.port), 0.2)
            assert late == ProbeResult(False, "no answer within 0.2 s")
        assert not (await example()(True).check(target(closed_port()), 10)).ok

    run(scenario())


@pytest.mark.parametrize(("options", "key"), [("x", ""), ({"prt": 1}, "prt"), ({"port": []}, "port")])
def test_the_example_refuses_wrong_options(options: Any, key: str) -> None:
    with pytest.raises(OptionError) as caught:
        example()(options)
    assert caught.value.key == key


def test_the_entry_point_is_of_the_group_that_is_looked_at() -> None:
    package, unit = (tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
    ((name, _),) = package["project"]["entry-points"][plugin_api.PROBES].items()
    assert name in unit["unit"]["cache"]["readiness"]


def test_every_name_of_the_interface_exists() -> None:
    for name in re.findall(r"`target\.tools\.(\w+)", PAGE) + re.findall(r"target\.tools\.(\w+)\(", PAGE):
        assert hasattr(plugin_api.Tools, name)
    for name in ("address", "port", "pid", "unit", "attempt", "notify", "tools"):
        assert name in Target.__slots__ and f"`{name}`" in PAGE
    for name in ("code", "signal", "output"):
        assert name in plugin_api.CommandResult.__slots__ and f"`{name}`" in PAGE
