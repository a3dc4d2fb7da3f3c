"""GET /v1/doctor: what the daemon answers to `unitctl doctor`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from supervisor.control import Control
from supervisor.core.doctor import Finding
from supervisor.host.access import Access
from supervisor.host.http import Peer, Request, Response
from supervisor.host.journal import Journal
from supervisor.installation import version
from tests.supervisor.running import run

ROOT, OTHER = Peer(0, 0, 1, "unix"), Peer(None, None, None, "127.0.0.1:1", "127.0.0.1:2")


async def examine() -> tuple[list[Any], dict[str, object]]:
    return [Finding("ok", "registry", "registry main", "well")], {"units": 3}


def asked(examination: Callable[[], Awaitable[Any]] | None, peer: Peer) -> Response:
    anything = cast(Any, None)
    with TemporaryDirectory() as folder:
        journal = Journal(folder)
        control = Control(
            anything, anything, anything, anything, anything, anything, Access(None), None, examination, journal=journal
        )
        try:
            return run(control.handle(Request("GET", "/v1/doctor", {}, {}, b"", peer)))
        finally:
            journal.close()


def test_findings_facts_and_the_version_are_answered() -> None:
    answer = asked(examine, ROOT)
    assert answer.status == 200
    assert json.loads(answer.body) == {
        "version": version(), "units": 3, "may_not_command": None,
        "findings": [{"outcome": "ok", "check": "registry", "subject": "registry main", "message": "well", "action": ""}],
    }  # fmt: skip


def test_who_may_look_and_not_command_is_told_so() -> None:
    answer = asked(examine, OTHER)
    assert answer.status == 200 and "may command" in json.loads(answer.body)["may_not_command"]


def test_who_may_not_look_gets_no_examination() -> None:
    def never() -> Awaitable[Any]:
        pytest.fail("it must not be examined for a stranger")

    assert asked(never, Peer(65534, 65534, None, "unix")).status == 403


def test_a_daemon_without_a_doctor_has_none() -> None:
    assert asked(None, ROOT).status == 404
