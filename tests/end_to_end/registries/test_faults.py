"""Faults of a registry: no unit is stopped or restarted, and soon after the fault exactly the living ones are registered."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from registry_client import RegistryError
from tests.end_to_end.machine import POLL_SECONDS
from tests.end_to_end.registries.site import COUNT, TTL, Site
from tests.servers import Proxy

pytestmark = pytest.mark.timeout(60)
RUBBISH = (
    b"\x00\xffno protocol at all\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>",
)


def test_a_server_that_is_killed_and_started_again(site: Site) -> None:
    site.run()
    with site.untouched():
        site.server.kill()
        site.until_lease("suspended", "lost")
        site.close()
        site.server.start()


def test_a_server_that_is_frozen_for_longer_than_the_ttl(site: Site) -> None:
    site.run()
    with site.untouched():
        site.server.freeze()
        site.until_lease("lost")
        site.server.thaw()


def test_a_server_that_loses_everything(site: Site) -> None:
    site.run()
    with site.untouched():
        site.close()
        site.server.lose_everything()


def test_a_registry_that_is_away_holds_a_restart_and_no_dead_unit(site: Site) -> None:
    """A planned restart needs a registry that says "gone". What is dead goes on when the entry's bound is over."""
    site.run(removal="expire")
    with site.untouched("shop:1"):
        generation, pid = site.living()["shop:1"], site.host.unit("shop:1")["pid"]
        site.proxy.cut()
        operations = site.host.order("restart", "shop:0")
        os.kill(pid, signal.SIGKILL)
        (operation,) = site.host.finish(operations, 4 * TTL + 15)
        assert operation["state"] == "failed", operation
        assert "cannot say whether the entry is gone" in operation["error"]
        site.until("it runs again", lambda: site.host.unit("shop:1")["pid"] not in (None, pid), 4 * TTL + 12)
        site.until_lease("lost")
        site.proxy.mend()
    assert site.living()["shop:1"] == generation + 1


def test_a_connection_that_is_cut_in_the_middle_of_a_call(site: Site) -> None:
    """Of a renewal, of a change, of a removal: what was asked for is done, and the daemon does not learn of it."""
    site.run()
    generation = site.living()["shop:0"]
    with site.untouched("shop:0"):
        with _one_call_cut(site):
            site.until_lease("held")
        with _one_call_cut(site):
            site.host.do("weight", "shop:1", weight=7)
        with _one_call_cut(site):
            site.host.do("restart", "shop:0")
    assert site.entries()["shop:1"].weight == 7
    assert site.living() == {"shop:0": generation + 1, "shop:1": 1, "shop:2": 1}


@contextmanager
def _one_call_cut(site: Site) -> Iterator[None]:
    already = site.proxy.calls_cut
    site.proxy.cut_after_request()
    yield
    site.until("a call was cut", lambda: site.proxy.calls_cut > already)
    site.until_lease("held")


def test_a_registry_that_answers_too_late(site: Site) -> None:
    """What is asked of it is done, and the daemon does not learn of it in time."""
    site.run()
    with site.untouched():
        site.proxy.delay(0.8 * TTL)
        site.until_lease("suspended", "lost")
        site.until("it is tried again", partial(_has_accepted_more, site.proxy, site.proxy.accepted + 1))
        site.proxy.mend()


def test_silence_and_rubbish_are_no_answers(site: Site) -> None:
    site.run()
    with site.untouched():
        site.proxy.stall()
        site.until_lease("suspended", "lost")
        site.proxy.mend()
        site.proxy.answer_with(RUBBISH[0])
        site.until("it is asked", partial(_has_accepted_more, site.proxy, site.proxy.accepted))
        site.proxy.answer_with(RUBBISH[1])
        site.until_lease("lost")
        site.proxy.mend()


def _has_accepted_more(proxy: Proxy, already: int) -> bool:
    return proxy.accepted > already


def test_a_daemon_that_is_frozen_for_longer_than_the_ttl(site: Site) -> None:
    """Its entries go, for nobody renews them, and come back in the same generation."""
    site.run()
    before = site.living()
    with site.untouched():
        site.host.signal(signal.SIGSTOP)
        try:
            site.until("all entries have gone", lambda: not site.entries(), 2 * TTL + 5)
        finally:
            site.host.signal(signal.SIGCONT)
    assert site.living() == before


def test_a_restart_waits_until_the_entry_is_gone_whatever_its_server_does(site: Site) -> None:
    """A server that is started again may begin all leases anew, and the entry then lives for longer than its ttl."""
    site.run(removal="expire")
    generation, pid = site.living()["shop:2"], site.host.unit("shop:2")["pid"]
    (operation,) = site.host.order("restart", "shop:2")
    was_waited_for, was_killed = False, False
    while (status := site.host.unit("shop:2"))["generation"] == generation:
        is_there = _is_listed(site, "shop:2", generation)
        if status["state"] == "EXPIRING":
            was_waited_for = was_waited_for or is_there is True
        elif status["pid"] != pid or status["state"] in ("STOPPING", "BACKOFF"):
            assert is_there is False, f"its entry is there: {status}"
        if was_waited_for and not was_killed:
            was_killed = True
            site.server.kill()
            site.close()
            site.server.start()
        time.sleep(POLL_SECONDS)
    assert was_waited_for
    (ended,) = site.host.finish([operation], 20)
    assert ended["state"] == "succeeded", ended
    site.until_right()
    assert site.living() == {"shop:0": 1, "shop:1": 1, "shop:2": generation + 1}


def _is_listed(site: Site, unit: str, generation: int) -> bool | None:
    """Whether the registry has the unit's entry of this generation; None: it does not answer."""
    try:
        entry = site.entries().get(unit)
    except RegistryError:
        return None
    return entry is not None and entry.generation == generation


def test_a_daemon_that_begins_while_its_registry_is_away(site: Site) -> None:
    site.proxy.cut()
    site.start()
    site.until("its units run", lambda: len(site.living()) == COUNT)
    assert not site.entries()
    with site.untouched():
        site.proxy.mend()


def test_a_weight_reaches_the_registry_and_the_lease_lives_on(site: Site) -> None:
    site.run()
    with site.untouched():
        site.host.do("weight", "shop:1", weight=7)
        site.until("the weight is there", lambda: site.entries()["shop:1"].weight == 7)
        site.stays("the weight is there", lambda: site.entries()["shop:1"].weight == 7)
