"""Each server starts, answers, keeps its data across a restart, loses them when told to, freezes; nothing of it survives us."""

from __future__ import annotations

import base64
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from tests.servers import Consul, Etcd, EtcdCluster, MissingProgram, NotReady, Redis, Server, ZooKeeper
from tests.servers.fixtures import ShareServer, StartServer, made

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.real


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def put(server: Server, key: str) -> None:
    """Have a server keep something."""
    match server:
        case Consul():
            assert server.ask("PUT", f"/v1/kv/{key}", "kept")[0] == 200
        case Etcd():
            token = server.authenticate(server.user, server.password) if server.user else ""
            body = {"key": _base64(server.prefix + key), "value": _base64("kept")}
            assert server.ask("POST", "/v3/kv/put", body, token=token)[0] == 200
        case Redis():
            assert server.ask("SET", server.prefix + key, "kept") == "OK"
        case ZooKeeper():
            with_kazoo(server, lambda client: client.create(f"/{key}", b"kept"))


def has(server: Server, key: str) -> bool:
    """It still keeps it."""
    match server:
        case Consul():
            return server.ask("GET", f"/v1/kv/{key}")[0] == 200
        case Etcd():
            token = server.authenticate(server.user, server.password) if server.user else ""
            body = {"key": _base64(server.prefix + key)}
            status, answer = server.ask("POST", "/v3/kv/range", body, token=token)
            assert status == 200, answer
            return "kvs" in answer
        case Redis():
            return server.ask("GET", server.prefix + key) == "kept"
        case _:
            assert isinstance(server, ZooKeeper)
            try:
                with_kazoo(server, lambda client: client.get(f"/{key}"))
            except NoNodeError:
                return False
            return True


def with_kazoo(server: ZooKeeper, act: Callable[[KazooClient], Any]) -> Any:
    """Do something as a client of ZooKeeper."""
    secret: dict[str, Any] = {}
    if server.certificates is not None:
        made_for_us = server.certificates
        secret = {
            "use_ssl": True,
            "ca": str(made_for_us.ca),
            "certfile": str(made_for_us.client_certificate),
            "keyfile": str(made_for_us.client_key),
        }
    client = KazooClient(server.url, timeout=5.0, **secret)
    try:
        client.start(5.0)
        return act(client)
    finally:
        client.stop()
        client.close()


def lives(pid: int) -> bool:
    """The process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [Consul, Etcd, Redis, ZooKeeper], ids=lambda kind: kind.__name__.lower())
def test_a_server_keeps_its_data_across_a_restart_and_loses_them_when_told_to(
    kind: type[Server], share_server: ShareServer, namespace: str
) -> None:
    server = share_server(kind)
    url, first = server.url, server.pid
    assert server.version[0].isdigit()
    put(server, namespace)
    server.kill()
    assert server.pid is None
    server.start()
    assert server.pid not in (None, first)
    assert has(server, namespace)
    server.lose_everything()
    assert server.url == url
    assert not has(server, namespace)


def test_a_frozen_server_answers_nobody_until_it_is_thawed(redis_server: Redis) -> None:
    redis_server.freeze()
    with pytest.raises(TimeoutError):
        redis_server.ask("PING", timeout_seconds=0.1)
    redis_server.thaw()
    assert redis_server.ask("PING") == "PONG"


def test_a_frozen_or_killed_server_of_the_run_is_whole_for_the_next_test(share_server: ShareServer) -> None:
    server = share_server(Redis)
    server.freeze()
    assert share_server(Redis) is server
    assert server.ask("PING") == "PONG"
    server.kill()
    assert share_server(Redis).ask("PING") == "PONG"


def test_a_stopped_server_leaves_no_process_and_no_folder(start_server: StartServer) -> None:
    server = start_server(Redis)
    folder, pid = server.folder, server.pid
    assert pid is not None and lives(pid) and folder.exists()
    server.stop()
    assert not lives(pid)
    assert not folder.exists()
    server.stop()


def test_a_stopped_server_can_be_started_anew(start_server: StartServer) -> None:
    server = start_server(Redis, tls=True)
    put(server, "a")
    server.stop()
    server.start()
    assert not has(server, "a")


def test_servers_are_no_descendants_of_the_tests(redis_server: Redis) -> None:
    """Some tests end, or count, all that descends from their process."""
    assert redis_server.pid is not None
    place = Path(f"/proc/{redis_server.pid}")
    while place.name not in ("0", "1"):
        assert place.name != str(os.getpid())
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        place = Path("/proc") / fields[1]


def test_a_server_lives_on_when_the_thread_that_started_it_ends(start_server: StartServer) -> None:
    server = made(Redis)
    try:
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        assert server.ask("PING") == "PONG"
    finally:
        server.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_nothing_survives_the_process_that_started_it(number: signal.Signals) -> None:
    made(Redis)
    code = (
        "import signal, time\nfrom tests.servers import Redis\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nserver = Redis()\nserver.start()\n"
        "print(server.pid, server.folder, flush=True)\ntime.sleep(1000)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            pid, folder = process.stdout.readline().split()
            assert lives(int(pid))
            process.send_signal(number)
            process.wait()
        finally:
            process.kill()  # else a failure would wait for it
        until(lambda: not lives(int(pid)) and not Path(folder).exists())


def test_a_port_that_was_taken_in_the_meantime_is_replaced(start_server: StartServer) -> None:
    other = start_server(Redis)
    server = made(Redis)
    try:
        server.ports = dict(other.ports)
        server.start()
        assert server.port != other.port
        assert server.ask("PING") == "PONG"
    finally:
        server.stop()


def test_a_server_that_ends_says_why(start_server: StartServer) -> None:
    server = start_server(Redis)
    server.kill()
    (server.data / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(NotReady, match="manifest"):
        server.start()
    assert server.pid is None


def test_a_missing_program_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingProgram, match="apt-get install etcd-server"):
        Etcd()


def test_a_missing_program_skips_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="redis-server is not installed"):
        made(Redis)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="redis-server is not installed"):
        made(Redis)


# Users, tokens, certificates.


def test_consul_with_acls_lets_only_the_registrar_register_even_after_it_lost_everything(
    share_server: ShareServer,
) -> None:
    consul = share_server(Consul, acl=True)
    service = {"ID": "web-1", "Name": "web", "Check": {"CheckID": "web-1", "TTL": "15s"}}
    register, passing = "/v1/agent/service/register", "/v1/agent/check/pass/web-1"
    assert consul.ask("PUT", register, service, token="")[0] == 403
    assert consul.ask("PUT", register, service, token=consul.registrar_token)[0] == 200
    assert consul.ask("PUT", passing, token="")[0] == 403
    assert consul.ask("PUT", passing, token=consul.registrar_token)[0] == 200
    assert consul.ask("PUT", "/v1/kv/a", "b", token=consul.registrar_token)[0] == 403
    only_reading = consul.make_token('service_prefix "" { policy = "read" }')
    assert consul.ask("PUT", passing, token=only_reading)[0] == 403
    consul.lose_everything()
    assert consul.ask("PUT", passing, token=only_reading)[0] == 403
    assert consul.ask("PUT", register, service, token=consul.registrar_token)[0] == 200


def test_etcd_with_users_has_one_with_rights_below_a_prefix(share_server: ShareServer) -> None:
    etcd = share_server(Etcd, auth=True)
    token = etcd.authenticate(etcd.user, etcd.password)

    def write(key: str, token: str) -> int:
        return etcd.ask("POST", "/v3/kv/put", {"key": _base64(key), "value": ""}, token=token)[0]

    assert write(etcd.prefix + "a", token) == 200
    assert write("/elsewhere", token) == 403
    assert write(etcd.prefix + "a", "") == 400
    etcd.lose_everything()
    assert write(etcd.prefix + "a", etcd.authenticate(etcd.user, etcd.password)) == 200


def test_etcd_grants_a_ttl_of_a_second(etcd: Etcd) -> None:
    assert etcd.ask("POST", "/v3/lease/grant", {"TTL": 1})[1]["TTL"] == "1"


def test_a_full_etcd_refuses_to_write(start_server: StartServer) -> None:
    etcd = start_server(Etcd, quota_bytes=64 * 1024)
    body = {"key": _base64("a"), "value": _base64("x" * 40_000)}
    until(lambda: "database space exceeded" in str(etcd.ask("POST", "/v3/kv/put", body)[1]))


def test_redis_with_a_password_refuses_strangers(start_server: StartServer) -> None:
    redis = start_server(Redis, password=True)
    put(redis, "a")
    redis.password = ""
    with pytest.raises(OSError, match="NOAUTH"):
        redis.ask("PING")


def test_redis_with_a_user_lets_it_write_below_its_prefix_only(start_server: StartServer) -> None:
    redis = start_server(Redis, acl=True)
    put(redis, "a")
    with pytest.raises(OSError, match="NOPERM"):
        redis.ask("SET", "elsewhere", "b")


@pytest.mark.parametrize("kind", [Consul, Etcd, Redis, ZooKeeper], ids=lambda kind: kind.__name__.lower())
def test_a_server_with_tls_serves_only_clients_with_a_certificate(
    kind: type[Server], start_server: StartServer
) -> None:
    server = start_server(kind, tls=True)
    put(server, "a")
    assert has(server, "a")
    assert server.certificates is not None
    without_certificate = ssl.create_default_context(cafile=str(server.certificates.ca))
    with (
        pytest.raises(ssl.SSLError, match=r"certificate required|bad certificate"),
        socket.create_connection(("127.0.0.1", server.port), 5.0) as plain,
        without_certificate.wrap_socket(plain, server_hostname="127.0.0.1") as secret,
    ):
        secret.recv(1)  # with TLS 1.3 the refusal comes after the handshake


# A cluster.


def test_a_cluster_of_etcd_goes_on_with_another_leader_when_its_leader_is_killed(start_server: StartServer) -> None:
    cluster = start_server(EtcdCluster, size=3)
    first = cluster.leader()
    assert len(set(cluster.urls)) == 3
    put(first, "a")
    first.kill()
    second = cluster.leader()
    assert second is not first
    assert has(second, "a")
    first.start()
    cluster.wait_ready()
    assert all(has(member, "a") for member in cluster.members)
