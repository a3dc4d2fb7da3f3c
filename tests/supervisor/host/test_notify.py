"""Words to the service manager."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from supervisor.host.notify import tell_manager


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_manager_gets_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@unitd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        tell_manager("READY=1")
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("name", ["", "/no/such/socket", "@unitd-nobody-listens-here"])
def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    tell_manager("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    tell_manager("READY=1")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_manager_that_does_not_read_does_not_hold_the_daemon_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        for _ in range(2000):
            tell_manager("STATUS=" + "x" * 500)
