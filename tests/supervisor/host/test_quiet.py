"""Warnings that must not fill the log."""

from __future__ import annotations

import logging

import pytest

from supervisor.host import quiet as module
from supervisor.host.quiet import Quiet


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Time:
    caplog.set_level(logging.WARNING)
    made = Time()
    monkeypatch.setattr(module, "monotonic", made)
    return made


def test_an_address_is_complained_about_once_a_minute_with_a_count(
    clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    quiet = Quiet()
    told = []
    for second in range(130):
        clock.now = 1000.0 + second
        told.append(quiet.warn("10.0.0.9", "refused %s", "it"))
    assert [second for second, was in enumerate(told) if was] == [0, 60, 120]
    assert caplog.messages == ["refused it"] + ["refused it (59 more like this since the last time)"] * 2


def test_each_address_has_its_own_warning(clock: Time, caplog: pytest.LogCaptureFixture) -> None:
    quiet = Quiet()
    assert all(quiet.warn(f"10.0.0.{number}", "refused") for number in range(5))
    assert not any(quiet.warn(f"10.0.0.{number}", "refused") for number in range(5))
    assert len(caplog.messages) == 5


def test_made_up_addresses_do_not_fill_the_memory(clock: Time) -> None:
    quiet = Quiet()
    for number in range(2000):
        quiet.warn(str(number), "refused")
    assert len(quiet._last) <= module._ADDRESSES
