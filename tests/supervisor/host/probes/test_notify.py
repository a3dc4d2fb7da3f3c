"""The probe kind `notify`."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.host.probes.notify import NotifyProbe
from supervisor.plugin_api import NotifyState
from tests.supervisor.host.probes.probing import check, refusal, target


@pytest.mark.parametrize(
    ("state", "ok", "words"),
    [
        (NotifyState(), False, "it has not said READY=1"),
        (NotifyState(status="loading 40 %"), False, "(its status: loading 40 %)"),
        (NotifyState(ready=True), True, "it has said READY=1"),
        (NotifyState(ready=True, status="idle"), True, "it has said READY=1 (its status: idle)"),
        (NotifyState(stopping=True), False, "it has said STOPPING=1"),
        (NotifyState(ready=True, watchdog_at=None), True, "READY=1"),
    ],
)
@pytest.mark.parametrize("options", [True, {}, {"watchdog": False}])
def test_a_unit_is_ready_when_it_says_so(options: Any, state: NotifyState, ok: bool, words: str) -> None:
    result = check(NotifyProbe(options), target(notify=state))
    assert result.ok is ok and words in result.detail


@pytest.mark.parametrize("options", [True, {"watchdog": True}])
def test_a_unit_without_a_socket_cannot_say_anything(options: Any) -> None:
    result = check(NotifyProbe(options), target())
    assert (result.ok, result.detail) == (False, "it was given no notify socket")


def test_a_watchdog_has_to_be_fed_between_two_checks() -> None:
    state, probe = NotifyState(ready=True), NotifyProbe({"watchdog": True})
    asked = target(notify=state)
    assert check(probe, asked).ok, "the first check finds nothing yet"
    silent = check(probe, asked)
    assert not silent.ok and silent.detail.startswith("no WATCHDOG=1 since the last check, ")
    state.watchdog_at = 10.0
    assert check(probe, asked).ok
    assert not check(probe, asked).ok
    state.watchdog_at = 20.0
    state.ready = False
    assert check(probe, asked).ok, "being alive is not being ready"


def test_what_was_said_before_the_first_check_does_not_count_for_the_second() -> None:
    probe, asked = NotifyProbe({"watchdog": True}), target(notify=NotifyState(watchdog_at=10.0))
    assert check(probe, asked).ok
    assert not check(probe, asked).ok


def test_a_unit_may_ask_to_be_restarted() -> None:
    result = check(NotifyProbe({"watchdog": True}), target(notify=NotifyState(watchdog_at=1.0, trigger=True)))
    assert not result.ok and "WATCHDOG=trigger" in result.detail


@pytest.mark.parametrize(
    ("options", "key", "words"),
    [
        (False, "", "must be true or a table, not false"),
        ({"watchdg": True}, "watchdg", "did you mean watchdog?"),
        ({"watchdog": "yes"}, "watchdog", "must be true or false"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_their_key(options: Any, key: str, words: str) -> None:
    found, reason = refusal(NotifyProbe, options)
    assert found == key and words in reason
