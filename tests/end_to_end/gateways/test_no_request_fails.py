"""No request through a gateway fails while units are restarted, drained, warmed up, added, removed and changed."""

from __future__ import annotations

import pytest

from bench.load import Mix
from tests.end_to_end.gateways.conftest import opened
from tests.end_to_end.gateways.kinds import HaproxyStage
from tests.end_to_end.gateways.scenario import Play, briefly
from tests.end_to_end.gateways.stage import Settings, Stage

pytestmark = [pytest.mark.timeout(90), pytest.mark.real]

RATE = 120.0
MIX = Mix(slow=0.1, echo=0.1, kept=0.5, slow_seconds=0.25)
SLOW = Mix(slow=0.5, echo=0.0, kept=0.5, slow_seconds=1.0)  # some are always being answered
MOST_RETRIED = 20  # where the gateway closes idle connections of clients whenever its servers change


def test_no_request_fails_whatever_is_done_to_the_units(any_stage: Stage) -> None:
    """Neither the gateway nor the client tries anything again, but what crosses with a connection's end."""
    played = Play(any_stage, RATE, MIX).run(briefly)

    assert {request.pid for request in played.requests} >= played.pids
    assert not played.explained(), any_stage.explain()
    assert len(played.retried) <= (MOST_RETRIED if any_stage.kind == "nginx" else 0)


def test_requests_fail_where_nothing_is_waited_for() -> None:
    """The same load sees the difference: neither for gateways nor for what is in flight."""
    settings = Settings(settle_seconds=0.0, drain="timeout = 0.01", gateway_seconds=0.0)
    with opened(HaproxyStage, settings) as stage:
        played = Play(stage, RATE, SLOW).run(lambda play: play.unitctl("restart", "web:0"))

    assert played.failures
