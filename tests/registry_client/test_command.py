"""`python -m registry_client`."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pytest

from registry_client.command import main

from .serving import ServedRegistry, heeding_ctrl_c, make_entry

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the developer's counts, and what `main` sets up for its process ends with the test."""
    for name in list(os.environ):
        if name.startswith("UNITD_REGISTRY_"):
            monkeypatch.delenv(name)
    level = logging.getLogger("registry_client").level
    with heeding_ctrl_c():
        yield
    logging.getLogger("registry_client").setLevel(level)


@pytest.fixture
def registry() -> Iterator[ServedRegistry]:
    with ServedRegistry() as served:
        yield served


def started(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Command:
    """The command as a process of its own, whose lines come with a deadline."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "registry_client", *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
        self.out, self.err = queue.Queue[str](), queue.Queue[str]()
        streams = (self.process.stdout, self.out), (self.process.stderr, self.err)
        self.threads = [threading.Thread(target=self._collect, args=stream) for stream in streams]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def _collect(stream: IO[str], lines: queue.Queue[str]) -> None:
        with stream:
            for line in stream:
                lines.put(line)

    def line(self) -> str:
        return self.out.get(timeout=10)

    def complaint(self, pattern: str) -> str:
        """The next line on standard error that the pattern is in."""
        while not re.search(pattern, line := self.err.get(timeout=10)):
            pass
        return line

    def end(self, with_signal: signal.Signals = signal.SIGINT) -> int:
        """The exit code after a signal; all of the output is there then."""
        self.process.send_signal(with_signal)
        code = self.process.wait(10)
        for thread in self.threads:
            thread.join(10)
        return code


@contextmanager
def running(*arguments: str) -> Iterator[Command]:
    command = Command(*arguments)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.end(signal.SIGKILL)


# -- list, get, inspect --------------------------------------------------------------------------------------------


def test_a_list_has_aligned_columns_with_status_weight_and_age(registry: ServedRegistry, capsys: Any) -> None:
    registry.register(make_entry("web-7/cart:0", "cart", port=9080, generation=12, started_at=started(65)))
    registry.register(
        make_entry("web-7/cart:10", "cart", status="draining", weight=0, started_at=started(3 * 86400 + 1))
    )
    registry.register(
        make_entry("web-8/stock", "stock", address="fe80::1", status="warming", weight=20, full_weight=50)
    )
    assert main(["list", "--url", registry.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.split(r"  +", lines[0]) == ["SERVICE", "INSTANCE", "ADDRESS", "STATUS", "WEIGHT", "GENERATION", "AGE"]
    cells = [re.split(r"  +", line) for line in lines[1:]]
    assert cells[0][:6] == ["cart", "web-7/cart:0", "127.0.0.1:9080", "up", "100/100", "12"]
    assert re.fullmatch(r"0:01:0[5-9]|0:01:[1-4]\d", cells[0][6])
    assert cells[1][3:6] == ["draining", "0/100", "1"] and cells[1][6].startswith("3 days, 0:00:")
    assert cells[2][2:5] == ["[fe80::1]:1", "warming", "20/50"]
    for name in ("INSTANCE", "ADDRESS", "STATUS", "WEIGHT", "GENERATION", "AGE"):
        column = lines[0].index(name)
        assert all(line[column - 1] == " " and line[column] != " " for line in lines)


def test_one_service_can_be_listed_and_an_unknown_one_is_not_there(registry: ServedRegistry, capsys: Any) -> None:
    registry.register(make_entry("a", "cart"))
    registry.register(make_entry("b", "stock"))
    assert main(["list", "cart", "--url", registry.url, "-o", "json"]) == 0
    assert [entry["instance"] for entry in json.loads(capsys.readouterr().out)["entries"]] == ["a"]
    assert main(["list", "nobody", "--url", registry.url]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "registry_client: nothing is registered as nobody\n")


def test_an_instance_is_shown_with_all_of_its_fields(registry: ServedRegistry, capsys: Any) -> None:
    entry = make_entry("n/1", version="1.2", metadata={"b": "x\x1b[31m\n", "a": "y"}, started_at=started(5))
    registry.register(entry)
    assert main(["get", "s", "n/1", "--url", registry.url]) == 0
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["version"] == "1.2" and rows["generation"] == "1" and "zone" not in rows
    assert rows["started_at"].startswith(entry.started_at + " (0:00:")
    assert (rows["metadata.a"], rows["metadata.b"]) == ("y", r"x\x1b[31m\n")
    assert main(["-o", "json", "get", "s", "n/1", "--url", registry.url]) == 0
    assert json.loads(capsys.readouterr().out) == entry.to_json()
    assert main(["get", "s", "n/2", "--url", registry.url]) == 1
    assert capsys.readouterr() == ("", "registry_client: n/2 of s is not registered\n")


def test_an_impossible_start_and_a_clock_that_is_behind_are_shown_all_the_same(
    registry: ServedRegistry, capsys: Any
) -> None:
    registry.register(make_entry("n/1", started_at="2026-02-31T00:00:00Z"))
    registry.register(make_entry("n/2", started_at=started(-3600)))
    assert main(["list", "--url", registry.url]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]] == ["?", "0:00:00"]


def test_inspect_tells_what_the_registry_would_grant(registry: ServedRegistry, capsys: Any) -> None:
    assert main(["inspect", "--ttl", "0.1", "--url", registry.url]) == 0
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (rows["backend"], rows["version"], rows["clock"]) == ("http", "not told", "not told")
    assert rows["ttl"] == "asked for 0.1 s, granted 0.5 s"
    assert rows["gone"] == "at most 0.8 s after the last renewal"
    assert "watch" in rows["can"]
    assert main(["inspect", "--url", registry.url, "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["asked_ttl_seconds"], report["granted_ttl_seconds"], report["removal_bound_seconds"]) == (
        10,
        10,
        10.3,
    )
    assert report["clock_offset_seconds"] is None and report["warnings"] == []
    assert 0 <= report["latency_seconds"] < 10


# -- options -------------------------------------------------------------------------------------------------------


def test_options_may_stand_before_and_after_the_action_and_come_from_the_environment(
    registry: ServedRegistry, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    registry.register(make_entry())
    assert main(["--url", registry.url, "list"]) == 0
    monkeypatch.setenv("UNITD_REGISTRY_URL", registry.url)
    assert main(["list"]) == 0
    monkeypatch.setenv("UNITD_REGISTRY_URL", "http://127.0.0.1:1")
    assert main(["list", "--url", registry.url]) == 0  # an option wins
    assert main(["list"]) == 69
    assert "does not answer" in capsys.readouterr().err
    monkeypatch.setenv("UNITD_REGISTRY_TIMEOUT", "soon")
    assert main(["list"]) == 2
    assert "UNITD_REGISTRY_TIMEOUT" in capsys.readouterr().err


def test_options_of_the_backend_alone_are_given_by_name(registry: ServedRegistry, capsys: Any) -> None:
    registry.register(make_entry())
    small = ["--option", "max_answer_bytes=10", "list", "--option", "watch_wait_seconds=2.5", "--url", registry.url]
    assert main(small) == 4
    assert "larger than 10 bytes" in capsys.readouterr().err
    assert main(["list", "--option", "colour=red", "--url", registry.url]) == 2
    assert "colour: this backend has no such option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["list"], "url: missing"),
        (["list", "--url", "127.0.0.1:9301"], "it must be like"),
        (["list", "--url", "http://user:geheim@127.0.0.1:1"], "give them as options"),
        (["list", "--backend", "nonsense"], "no such backend is installed"),
        (["list", "--backend", "embedded"], "ask its daemon"),
        (["list", "--url", "http://127.0.0.1:1", "--prefix", "x"], "prefix: this backend has no such option"),
        (["list", "--url", "http://127.0.0.1:1", "--token-file", "/nowhere/t"], "cannot read /nowhere/t: no such file"),
        (["list", "--url", "https://127.0.0.1:1", "--ca", "/nowhere/ca"], "cannot use /nowhere/ca: no such file"),
        (["list", "--url", "https://127.0.0.1:1", "--key", "/nowhere/k"], "of no use without a certificate"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_asked(
    arguments: list[str], complaint: str, capsys: Any
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and complaint in err and "geheim" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["get", "s"],
        ["list", "--timeout", "0"],
        ["list", "--timeout", "nan"],
        ["inspect", "--ttl", "-1"],
        ["list", "--option", "nothing"],
        ["list", "--option", "token=geheim"],
        ["list", "--token", "geheim"],
        ["list", "--password", "geheim"],
        ["list", "-o", "yaml"],
    ],
)
def test_wrong_usage_ends_with_2_and_secrets_are_no_arguments(arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("given_by", ["file", "variable", "variable with a file"])
def test_a_token_comes_from_a_file_or_the_environment(
    given_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("geheim\n")
    arguments = ["list", "--timeout", "5"]
    if given_by == "file":
        arguments += ["--token-file", str(tmp_path / "token")]
    elif given_by == "variable":
        monkeypatch.setenv("UNITD_REGISTRY_TOKEN", "geheim")
    else:
        monkeypatch.setenv("UNITD_REGISTRY_TOKEN_FILE", str(tmp_path / "token"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen = queue.Queue[bytes]()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                seen.put(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert main([*arguments, "--url", f"http://127.0.0.1:{listener.getsockname()[1]}"]) == 4
        thread.join(10)
    assert b"authorization: bearer geheim\r\n" in seen.get(timeout=1).lower()


# -- watch ---------------------------------------------------------------------------------------------------------


def test_a_watch_prints_a_line_for_each_change(registry: ServedRegistry) -> None:
    registry.register(make_entry("n/1", port=81, weight=10))
    with running("watch", "s", "--url", registry.url) as command:
        first = command.line()
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \+ s n/1  ", first)
        assert first.endswith("127.0.0.1:81 up weight 10/100 generation 1\n")
        assert "watching s: 1 registered" in command.complaint("watching")
        registry.register(make_entry("n/1", port=81, weight=20, status="draining", metadata={"rack": "\x1b7"}))
        assert command.line().endswith("Z ~ s n/1  status up -> draining, weight 10 -> 20, metadata rack\n")
        registry.register(make_entry("n/2"))
        assert " + s n/2 " in command.line()
        registry.deregister(make_entry("n/1"))
        assert command.line().endswith("Z - s n/1\n")
        assert command.end() == 130
        assert command.out.empty() and command.err.empty()  # no traceback


def test_a_watch_prints_snapshots_as_json_lines(registry: ServedRegistry) -> None:
    with running("watch", "--url", registry.url, "--output=json") as command:
        assert json.loads(command.line())["entries"] == []
        registry.register(make_entry("n/1"))
        snapshot = json.loads(command.line())
        assert snapshot["entries"] == [make_entry("n/1").to_json()] and snapshot["service"] is None


def test_a_watch_goes_on_through_an_outage_and_a_loss_and_says_so(registry: ServedRegistry) -> None:
    registry.register(make_entry("n/1"))
    registry.register(make_entry("n/2"))
    with running("watch", "s", "--url", registry.url) as command:
        assert " + s n/1 " in command.line() and " + s n/2 " in command.line()
        registry.deafen()
        assert "trying again" in command.complaint("does not answer")
        registry.forget()
        registry.register(make_entry("n/2"))
        registry.listen()
        command.complaint("goes on")
        command.complaint("lost its memory")
        assert command.line().endswith("Z - s n/1\n")
        assert command.end() == 130


def test_a_watch_waits_for_a_registry_that_is_not_there_yet() -> None:
    with ServedRegistry() as served:
        served.register(make_entry("n/1"))
        served.deafen()
        with running("watch", "--url", served.url) as command:
            command.complaint("trying again")
            served.listen()
            assert " + s n/1 " in command.line()


def test_a_quiet_watch_ends_when_nobody_reads_it_any_more(registry: ServedRegistry) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "registry_client", "watch", "--url", registry.url, "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            assert json.loads(process.stdout.readline())["entries"] == []
            process.stdout.close()
            assert process.wait(10) == 0
            assert process.stderr.read().count(b"\n") == 1  # "watching ..."
        finally:
            process.kill()


def test_a_list_that_nobody_reads_to_its_end_is_no_error(registry: ServedRegistry) -> None:
    for number in range(300):
        registry.register(make_entry(f"n/{number}", metadata={"text": "x" * 500}))
    script = (
        f"{sys.executable} -m registry_client list -o json --url {registry.url} | head -c 10; echo ${{PIPESTATUS[0]}}"
    )
    ended = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True, cwd=ROOT, timeout=15)
    assert (ended.stdout, ended.stderr) == ('{"epoch":"0\n', "")


def test_ctrl_c_while_the_registry_does_not_answer_ends_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with running("list", "--timeout", "60", "--url", url) as command, silent.accept()[0] as connection:
            connection.recv(10)
            began = time.monotonic()
            assert command.end() == 130
            assert time.monotonic() - began < 10 and command.err.empty()


def test_a_registry_that_does_not_answer_is_told_from_one_that_has_nothing(capsys: Any) -> None:
    assert main(["get", "s", "n/1", "--url", f"http://127.0.0.1:{free_port()}"]) == 69
    assert "does not answer" in capsys.readouterr().err


def test_a_wrong_address_is_a_refusal_and_not_an_empty_registry(registry: ServedRegistry, capsys: Any) -> None:
    assert main(["list", "--url", f"{registry.url}/elsewhere"]) == 4
    assert capsys.readouterr().out == ""
