"""There is one way out: whatever the cause, a unit is signalled after its entry is gone and its work is done."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.end_to_end.drain.scene import Registry, apply, ask, clients, notes, worker
from tests.end_to_end.host import Host
from tests.end_to_end.machine import until

SLOW_SECONDS = 1.0  # longer than the ttl and the settling: still under way when the drain begins

LIVENESS = """
    [unit.shop.liveness]
    http = "/healthz"
    period = 0.1
    failure_threshold = 2
"""


def _configure(host: Host, port: int, removal: str, settings: str = "") -> None:
    tables = LIVENESS + "[unit.NAME.drain]\nquiet = 0.2"
    host.configure(worker(host, "shop", port, removal=removal, settings=settings, tables=tables))


def _stop(host: Host, port: int, removal: str) -> None:
    host.do("stop", "shop")


def _restart(host: Host, port: int, removal: str) -> None:
    host.do("restart", "shop")


def _apply(host: Host, port: int, removal: str) -> None:
    _configure(host, port, removal, 'environment = { COLOUR = "red" }')
    assert [operation["state"] for operation in host.finish(apply(host))] == ["succeeded"]


def _remove(host: Host, port: int, removal: str) -> None:
    host.configure("")
    assert [operation["state"] for operation in host.finish(apply(host))] == ["succeeded"]


def _lose_liveness(host: Host, port: int, removal: str) -> None:
    generation = host.unit("shop")["generation"]
    ask(port, "/sick", "POST")
    host.until_registered("shop", generation)


def _shut_down(host: Host, port: int, removal: str) -> None:
    done = host.unitctl("shutdown")
    assert done.returncode == 0, done
    assert host.wait() == 0


def _terminate(host: Host, port: int, removal: str) -> None:
    host.stop()


def _drain_then_stop(host: Host, port: int, removal: str) -> None:
    host.do("drain", "shop")
    assert notes(host, "shop", "term") == []
    host.do("stop", "shop")


CAUSES: dict[str, Callable[[Host, int, str], None]] = {
    "stop": _stop, "restart": _restart, "apply": _apply, "removed": _remove, "liveness": _lose_liveness,
    "shutdown": _shut_down, "SIGTERM": _terminate, "drain and stop": _drain_then_stop,
}  # fmt: skip


@pytest.mark.parametrize(
    ("cause", "removal"),
    [*((cause, "expire") for cause in CAUSES), *((cause, "deregister") for cause in ("restart", "liveness"))],
)
def test_a_unit_is_signalled_only_when_its_entry_is_gone_and_its_work_is_done(
    host: Host, cause: str, removal: str
) -> None:
    port = host.port()
    _configure(host, port, removal)
    host.run()
    generation = host.until_registered("shop")["generation"]

    with Registry(host, "shop") as registry, clients() as at_it:
        [asked] = at_it.slow(host, "shop", port, SLOW_SECONDS)
        at_it.keep(port, 3)
        CAUSES[cause](host, port, removal)
        [term] = until("it was signalled", lambda: notes(host, "shop", "term", generation))
        answer = asked.result()

    assert term.at >= registry.last_seen("shop", generation), "the entry goes before the signal"
    if cause != "liveness":  # what does not deserve to live is not waited for
        assert answer == f"{term.pid} {generation}", "what it was asked before is answered"
        [answered] = notes(host, "shop", "answered", generation)
        assert answered.at <= term.at and term.detail == "0"
    if removal == "expire":
        assert ("draining", 0) in registry.said("shop", "status", "weight", generation=generation)
