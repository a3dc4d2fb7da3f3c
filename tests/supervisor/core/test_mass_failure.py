"""How many units probes may take out of traffic."""

import pytest

from supervisor.core.mass_failure import allowed, held_reason, may_lose_one_more


@pytest.mark.parametrize(
    ("registered", "percent", "most"),
    [(0, 50, 3), (1, 50, 3), (7, 50, 3), (8, 50, 4), (9, 50, 4), (1000, 50, 500), (1000, 0, 3), (20, 100, 20)],
)
def test_a_share_of_the_registered_units_and_always_three(registered: int, percent: int, most: int) -> None:
    assert allowed(registered, percent) == most


@pytest.mark.parametrize(("registered", "percent"), [(5, 50), (8, 50), (40, 10), (1000, 50), (10, 99)])
def test_the_guard_holds_exactly_from_the_limit_on_and_its_reason_is_true_then(registered: int, percent: int) -> None:
    most = allowed(registered, percent)
    assert may_lose_one_more(most - 1, registered, percent)
    assert not may_lose_one_more(most, registered, percent)
    assert (most + 1) * 100 > registered * percent


def test_all_may_go_where_all_are_allowed() -> None:
    assert all(may_lose_one_more(out, 20, 100) for out in range(20))


def test_the_reason_says_what_is_not_done_and_what_is_suspected() -> None:
    assert held_reason("readiness", 50) == (
        "its readiness probe fails; not withdrawn: more than 50 % of this host's units would be out, "
        "so the probe or the network is suspected"
    )
    assert "its liveness probe fails; not restarted: more than 12.5 %" in held_reason("liveness", 12.5)
