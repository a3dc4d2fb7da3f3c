"""supervisord's restart behind a HAProxy with a fixed list of servers: what the bench of gateways compares with."""

from __future__ import annotations

import argparse
import asyncio
import time

from restart_under_load import COUNT, LoadedSupervisord, Measured, Setting
from sides import Units

from bench.gateway_load import MIX, GatewayLoad
from bench.load_account import Spell
from tests.end_to_end.gateways.kinds import ONCE
from tests.end_to_end.gateways.scenario import Played
from tests.end_to_end.gateways.stage import ADDRESS, SERVICE
from tests.end_to_end.machine import free_ports
from tests.servers.haproxy import Haproxy

SUPERVISORD = "supervisord"
CHECKS = "    default-server check inter 250ms fastinter 100ms downinter 250ms fall 2 rise 1\n"


def restart_with_supervisord(chosen: argparse.Namespace) -> Played:
    """Restart all, one after another, until enough requests were sent."""
    first = free_ports(COUNT)
    side = LoadedSupervisord(Units(idle=COUNT))
    side.setting = Setting(port=first, http=0)
    servers = "".join(f"    server {SERVICE}-{number} {ADDRESS}:{first + number}\n" for number in range(COUNT))
    with side, Haproxy(SERVICE, backend=ONCE + CHECKS + servers) as haproxy:
        load = GatewayLoad(chosen.rate, MIX, ADDRESS, haproxy.port)
        played = Played(load.requests, load.retried)
        asyncio.run(_restart_again_and_again(side, load, played, chosen.requests))
    played.pids = {request.pid for request in played.requests if request.pid}
    return played


async def _restart_again_and_again(side: LoadedSupervisord, load: GatewayLoad, played: Played, wanted: int) -> None:
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(enough))
        try:
            await load.steady.wait()
            while len(load.requests) < wanted:
                begun = time.time()
                await side.restart(Measured(side.name, "", []))
                played.acts.append(Spell(SERVICE, "rolling restart", begun, time.time()))
        finally:
            enough.set()
