"""The nginx feeder with a real nginx: what its clients see, and whom it sends to."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import GatewayRefused, GatewayUnreachable
from gateway.model import Applied, Failure, Finding, Recovery, Symptom
from tests.end_to_end.machine import until
from tests.servers.fixtures import StartServer, start_server
from tests.servers.nginx import Nginx

from .running import Client, Load, Running, Unit, ask, pool, shares, spec_of

__all__ = ["start_server"]

pytestmark = pytest.mark.real
QUICK = "coalesce_seconds = 0.1\nlook_seconds = 0.1"


@pytest.fixture
def nginx(start_server: StartServer) -> Nginx:
    return start_server(Nginx)


@pytest.fixture
def run(nginx: Nginx) -> Iterator[Callable[..., Running]]:
    """A feeder of the nginx, with further lines of its configuration."""
    running: list[Running] = []

    def start(extra: str = "", services: tuple[str, ...] = ()) -> Running:
        lines = {line.partition(" = ")[0]: line for line in (QUICK + "\n" + extra).splitlines()}
        running.append(Running(spec_of(nginx, "\n".join(lines.values()), services)))
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Unit]]:
    started = [Unit(name, tmp_path_factory.mktemp(name)) for name in ("a", "b", "c")]
    yield started
    for unit in started:
        unit.process.end()


@pytest.fixture
def units(processes: list[Unit]) -> list[Unit]:
    """Three servers, well, whatever the test before did to them."""
    for unit in processes:
        unit.heal()
    return processes


def test_servers_get_requests_when_apply_returns_and_none_when_they_drain(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, (a, b, c) = run(), units
    assert ask(nginx.port)[0] == 502
    applied = feeder.apply(pool(a.server(), b.server(), c.server(), revision=7))[0]
    assert (applied.service, applied.revision, applied.serving) == ("cart", 7, {a.key, b.key, c.key})
    assert shares(nginx.port, 60) == {"a": 20, "b": 20, "c": 20}

    applied = feeder.settled(pool(a.server(), b.server(0), c.server(), revision=8))
    assert set(shares(nginx.port, 20)) == {"a", "c"}
    feeder.apply(pool(a.server(), c.server(), revision=9))
    assert nginx.reloads == 2, "one that drained goes without a reload"


def test_an_empty_pool_is_answered_at_once_with_502_and_filled_again(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder = run()
    feeder.apply(pool(units[0].server()))
    assert ask(nginx.port) == (200, "a")
    assert feeder.settled(pool(units[0].server(0))).serving == frozenset()
    assert ask(nginx.port)[0] == 502
    feeder.settled(pool())
    feeder.apply(pool(units[0].server()))
    assert ask(nginx.port) == (200, "a")


def test_a_warm_up_reloads_only_when_a_step_is_reached_and_shares_follow(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, (a, b, _) = run('balance = ""'), units
    reloads = []
    for weight in (10, 20, 30, 40, 50, 60, 70, 80, 90, 100):
        feeder.apply(pool(a.server(), b.server(weight)))
        reloads.append(nginx.reloads)
        if weight == 40:
            assert shares(nginx.port, 50) == {"a": 40, "b": 10}
    assert reloads == [1, 1, 1, 1, 2, 2, 2, 2, 2, 3], "at 10, at 50 and at 100"
    assert shares(nginx.port, 40) == {"a": 20, "b": 20}


def test_nothing_is_reloaded_when_nothing_changed_not_even_by_a_new_unit_gateway(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    wanted = pool(units[0].server(), units[1].server())
    run().settled(wanted)
    text = nginx.upstreams.read_text()
    assert run().apply(wanted, full=True)[0].serving == {units[0].key, units[1].key}
    assert (nginx.reloads, nginx.upstreams.read_text()) == (1, text)


def test_a_file_that_somebody_changed_is_put_right_by_a_full_apply(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, wanted = run(), pool(units[0].server())
    feeder.settled(wanted)
    right = nginx.upstreams.read_text()
    nginx.upstreams.write_text("upstream cart { server 127.0.0.1:1; }\n")
    nginx.reload()
    assert ask(nginx.port)[0] == 502
    feeder.apply(wanted, full=True)
    assert nginx.upstreams.read_text() == right
    assert ask(nginx.port) == (200, "a")


def test_many_changes_at_once_are_one_reload(nginx: Nginx, run: Callable[..., Running], units: list[Unit]) -> None:
    run("", ("cart", "shop-*")).apply(*(pool(units[1].server(), service=f"shop-{number}") for number in range(20)))
    assert nginx.upstreams.read_text().count("upstream shop-") == 20
    assert nginx.reloads == 1


def test_kept_alive_clients_lose_no_request_while_servers_come_and_go(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, (a, b, c) = run(), units
    feeder.apply(pool(a.server(), b.server(), c.server()))
    with Load(nginx.port) as load:
        for number in range(2):
            load.more(50)
            for unit in units:
                feeder.settled(pool(*(each.server(0 if each is unit else 100) for each in units)))
                gone_at = time.monotonic()
                load.more(20)
                late = [answer for answer in load.answers if answer[2] == unit.name and answer[0] > gone_at]
                assert not late, f"round {number}"
                # No old worker is left, and so is nothing that it was sent before: it may be killed.
                unit.process.end()
                unit.heal()
            feeder.apply(pool(a.server(), b.server(), c.server()))
    assert not load.failed()
    assert {name for _, _, name in load.answers} == {"a", "b", "c"}


def test_who_drains_is_still_told_as_served_while_an_old_worker_reads_a_request(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, (a, b, _) = run(), units
    feeder.apply(pool(a.server()))
    # Its body has not come yet when nginx is reloaded: the old worker has not chosen a server.
    with socket.create_connection(("127.0.0.1", nginx.port), 10.0) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n")
        until("nginx has read the head", lambda: _has_read(slow))
        wanted = pool(a.server(0), b.server())
        assert feeder.apply(wanted)[0].serving == {a.key, b.key}
        assert ask(nginx.port) == (200, "b")
        slow.sendall(b"body")
        assert slow.recv(4096).endswith(b"a"), "it was sent to the one that drains"
    assert feeder.settled(wanted).serving == {b.key}


def test_an_old_worker_that_only_has_long_answers_open_is_not_waited_for_for_ever(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, (a, b, _) = run("old_workers_seconds = 0.3"), units
    feeder.apply(pool(a.server()))
    with socket.create_connection(("127.0.0.1", nginx.port), 10.0) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n")
        until("nginx has read the head", lambda: _has_read(slow))
        assert feeder.settled(pool(a.server(0), b.server())).serving == {b.key}
        assert len(nginx.workers()) == 3


def _has_read(client: socket.socket) -> bool:
    """The other side has taken all from its socket: nothing is queued there."""
    local, remote = client.getsockname()[1], client.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(f":{remote:04X}") and fields[2].endswith(f":{local:04X}"):
            return fields[4].endswith(":00000000")
    return False


def test_while_nginx_is_away_the_file_is_written_and_it_starts_right(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, wanted = run(), pool(units[1].server())
    feeder.apply(pool(units[0].server()))
    nginx.terminate()
    with pytest.raises(GatewayUnreachable, match="no master process"):
        feeder.apply(wanted)
    with pytest.raises(GatewayUnreachable):
        feeder.look()
    nginx.start()
    assert ask(nginx.port) == (200, "b")
    assert feeder.apply(wanted)[0].serving == {units[1].key}
    feeder.look()


def test_a_reload_that_was_not_made_is_made_by_the_next_unit_gateway(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, wanted = run('reload = ["/bin/false"]'), pool(units[0].server())
    with pytest.raises(GatewayUnreachable, match="/bin/false ended with 1"):
        feeder.apply(wanted)
    assert ask(nginx.port)[0] == 502
    run().apply(wanted, full=True)
    assert ask(nginx.port) == (200, "a")


def test_a_reload_command_of_the_user_is_used(nginx: Nginx, run: Callable[..., Running], units: list[Unit]) -> None:
    feeder = run(f'reload = ["{shutil.which("nginx") or "/usr/sbin/nginx"}", "-c", "{nginx.conf}", "-s", "reload"]')
    feeder.apply(pool(units[0].server()))
    assert ask(nginx.port) == (200, "a")


def test_nginx_restarted_and_reloaded_by_others_goes_on_with_the_same(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, wanted = run(), pool(units[0].server(), units[1].server())
    feeder.apply(wanted)
    nginx.reload()
    feeder.apply(wanted, full=True)
    nginx.restart()
    assert feeder.apply(wanted, full=True)[0].serving == {units[0].key, units[1].key}
    assert set(shares(nginx.port, 10)) == {"a", "b"}
    assert feeder.settled(pool(units[1].server())).serving == {units[1].key}
    assert set(shares(nginx.port, 10)) == {"b"}


def test_a_mistake_in_nginx_s_own_configuration_is_told_in_nginx_s_words_and_changes_nothing(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder = run()
    feeder.settled(pool(units[0].server()))
    right, conf = nginx.upstreams.read_text(), nginx.conf.read_text()
    nginx.conf.write_text(conf.replace("keepalive_requests", "keepalive_reqests"))
    with pytest.raises(GatewayRefused, match=f'unknown directive "keepalive_reqests" in {nginx.conf}'):
        feeder.apply(pool(units[1].server()))
    assert nginx.upstreams.read_text() == right
    assert ask(nginx.port) == (200, "a")
    nginx.conf.write_text(conf)
    feeder.apply(pool(units[1].server()))
    assert ask(nginx.port) == (200, "b")
    assert not list(nginx.folder.glob(".unit-gateway*")), "no copies are left"


def test_one_service_that_nginx_does_not_take_holds_up_no_other(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder = run("", ("*",))
    bad = pool(replace(units[1].server(), service="bad", address="no-such-host.invalid"), service="bad")
    pools = pool(units[0].server()), bad, pool(units[1].server(), service="other")

    async def together() -> list[object]:
        return list(await asyncio.gather(*map(feeder.feeder.apply, pools), return_exceptions=True))

    cart, refused, other = feeder.call(together())
    assert isinstance(refused, GatewayRefused) and "no-such-host.invalid" in str(refused)
    assert isinstance(cart, Applied) and isinstance(other, Applied)
    assert ask(nginx.port) == (200, "a")
    assert "upstream other {" in nginx.upstreams.read_text()


def test_a_template_of_the_user_is_used_and_one_that_is_broken_is_refused(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit], tmp_path: Path
) -> None:
    template = tmp_path / "upstreams.template"
    good = "{{each service}}\nupstream {{upstream}} {\n  {{each server}}\n  server {{place}} weight={{weight}} max_conns=9 {{state}};\n  {{end}}\n}\n{{end}}\n"
    template.write_text(good)
    feeder = run(f'template = "{template}"')
    feeder.apply(pool(units[0].server()))
    assert "max_conns=9;" in nginx.upstreams.read_text()
    assert ask(nginx.port) == (200, "a")
    right = nginx.upstreams.read_text()
    for wrong, words in (
        (good.replace("place", "plaice"), "line 4: {{plaice}} is not known"),
        (good.replace("max_conns=9", "max_cons=9"), 'invalid parameter "max_cons=9"'),
        (good.replace("  {{end}}\n", ""), "that no {{end}} ends"),
    ):
        template.write_text(wrong)
        with pytest.raises(GatewayRefused) as refused:
            feeder.apply(pool(units[1].server()))
        assert words in str(refused.value)
    assert nginx.upstreams.read_text() == right
    template.unlink()
    with pytest.raises(GatewayRefused, match="there is no"):
        feeder.apply(pool(units[1].server()))
    assert ask(nginx.port) == (200, "a")


def test_a_configuration_that_does_not_include_the_file_is_refused(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder = run()
    nginx.conf.write_text(nginx.conf.read_text().replace("include ", "#include "))
    with pytest.raises(GatewayRefused, match="does not include"):
        feeder.apply(pool(units[0].server()))


def test_a_killed_server_is_told_at_once_and_told_well_again_after_its_restart(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, (a, b, _) = run("fail_timeout_seconds = 1"), units
    wanted = pool(a.server(), b.server())
    feeder.apply(wanted)
    a.process.end()
    with Load(nginx.port) as load:
        found = feeder.found(lambda findings: any(isinstance(each, Failure) and each.down for each in findings))
        failure = next(each for each in found if isinstance(each, Failure))
        assert (failure.service, failure.instance, failure.generation) == ("cart", "a", 1)
        assert failure.symptom is Symptom.CONNECT_REFUSED
        assert "connect() failed (111" in failure.detail
        a.heal()  # the same generation: as after a moment in which it did not listen
        found = feeder.found(lambda findings: any(isinstance(each, Recovery) for each in findings))
    assert not load.failed(), "nginx asks the other one"
    assert {each.instance for each in found} == {"a"}


def test_a_frozen_server_is_told_when_it_has_not_answered(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, (a, b, _) = run(), units
    feeder.apply(pool(a.server(), b.server()))
    a.process.signal(signal.SIGSTOP)
    with Load(nginx.port):
        found = feeder.found(len)
    failure = found[0]
    assert isinstance(failure, Failure)
    assert (failure.instance, failure.symptom, failure.down) == ("a", Symptom.RESPONSE_TIMEOUT, False)
    assert "upstream timed out (110" in failure.detail


def test_answers_that_are_errors_are_told_and_totals_are_counted(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder = run()
    feeder.apply(pool(units[0].server()))
    for _ in range(6):
        assert ask(nginx.port, "/?status=500")[0] == 500
    found = feeder.found(len)
    assert found == [Failure("cart", "a", 1, Symptom.ERROR_ANSWERS, 6, False, "6 of 6 answers were 5xx")]
    ask(nginx.port)
    assert feeder.found(len) == [Recovery("cart", "a", 1)]
    view = feeder.look().views[0]
    assert (view.instance, view.total, view.weight) == ("a", 7, 1)


def test_evidence_is_found_in_logs_that_are_rotated(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder, a = run("max_fails = 0"), units[0]
    feeder.apply(pool(a.server()))
    a.process.end()

    def refused() -> list[Finding]:
        assert ask(nginx.port)[0] == 502
        return feeder.found(len)

    assert len(refused()) == 1
    nginx.error_log.rename(nginx.folder / "error.log.1")
    assert len(refused()) == 1, "nginx still writes to the file that was moved away"
    os.kill(nginx.pid or -1, signal.SIGUSR1)
    until("nginx has opened its logs again", nginx.error_log.exists)
    assert len(refused()) == 1
    os.truncate(nginx.error_log, 0)
    assert len(refused()) == 1


def test_a_feeder_without_a_file_writes_one_that_nginx_can_start_with(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    nginx.terminate()
    nginx.upstreams.unlink()
    feeder = run("", ("cart", "shop-*"))
    nginx.start()
    assert ask(nginx.port)[0] == 502
    feeder.apply(pool(units[0].server()), full=True)
    assert ask(nginx.port) == (200, "a")


def test_a_service_that_is_named_later_has_an_upstream_when_unit_gateway_has_started(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    run().apply(pool(units[0].server()))
    nginx.conf.write_text(nginx.conf.read_text().replace("http://cart", "http://basket"))
    run("", ("cart", "basket"))
    assert ask(nginx.port)[0] == 502
    assert nginx.reloads == 2


def test_upstreams_of_other_names_stand_beside_the_user_s_own(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    own = f"upstream cart {{ server 127.0.0.1:{units[0].port}; }}\n"
    nginx.upstreams.write_text("")
    nginx.conf.write_text(nginx.conf.read_text().replace("server {", own + "server {", 1))
    run('upstream = "unit-{service}"').apply(pool(units[1].server()), full=True)
    assert ask(nginx.port) == (200, "a")
    nginx.conf.write_text(nginx.conf.read_text().replace("http://cart", "http://unit-cart"))
    nginx.reload()
    assert ask(nginx.port) == (200, "b")


def test_other_services_keep_what_they_have_while_a_new_unit_gateway_does_not_know_of_them_yet(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    run("", ("*",)).apply(pool(units[0].server()), pool(units[1].server(), service="other"))
    run("", ("*",)).apply(pool(units[2].server(), service="other"), full=True)
    assert ask(nginx.port) == (200, "a")
    assert f"127.0.0.1:{units[2].port}" in nginx.upstreams.read_text()


def test_close_may_be_called_twice_and_in_the_middle_of_a_change(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    feeder = run("coalesce_seconds = 5")

    async def cut() -> None:
        change = asyncio.create_task(feeder.feeder.apply(pool(units[0].server())))
        await asyncio.sleep(0)
        await feeder.feeder.close()
        with pytest.raises(asyncio.CancelledError):
            await change

    feeder.call(cut())
    assert nginx.reloads == 0


def test_many_requests_of_a_client_use_the_same_connections_to_servers(
    nginx: Nginx, run: Callable[..., Running], units: list[Unit]
) -> None:
    run().apply(pool(units[0].server()))
    client = Client(nginx.port)
    for _ in range(50):
        assert client.ask() == (200, "a")
    client.close()
    port = f":{units[0].port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert sum(row[2].endswith(port) and row[3] == "01" for row in rows) <= 2
