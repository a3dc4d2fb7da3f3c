"""While a unit warms up, HAProxy's own counters show that its share of the requests follows its weight."""

from __future__ import annotations

import csv
import itertools
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bench.load import Mix
from tests.end_to_end.gateways.conftest import opened
from tests.end_to_end.gateways.kinds import HaproxyStage
from tests.end_to_end.gateways.scenario import Play
from tests.end_to_end.gateways.stage import ADDRESS, SERVICE

pytestmark = [pytest.mark.timeout(90), pytest.mark.real]

RATE = 300.0
STEPS = (20, 40, 60, 80)  # percent of the full weight, before it is reached
SLOWLY = ("--initial", "20", "--step", "20", "--period", "1s")
LOOK_SECONDS = 0.05
ENOUGH = 100  # requests, to say anything of a share
BOUND = 4.0  # standard deviations, if each choice were by chance; HAProxy takes turns, which is nearer


@dataclass(frozen=True, slots=True)
class Sample:
    """What HAProxy shows of its servers, by address: the weight of those that are up, and how often each was chosen."""

    weights: dict[str, int]
    chosen: dict[str, int]


@pytest.fixture
def stage() -> Iterator[HaproxyStage]:
    """All at full weight."""
    with opened(HaproxyStage) as made:
        assert isinstance(made, HaproxyStage)
        yield made


def sample(stage: HaproxyStage) -> Sample:
    lines = stage.server.ask("show stat").removeprefix("# ").splitlines()
    rows = [row for row in csv.DictReader(lines) if row["pxname"] == SERVICE and row["svname"] != "BACKEND"]
    up = [row for row in rows if row["status"].startswith("UP") and int(row["weight"]) > 0]
    chosen = {row["addr"]: int(row["lbtot"]) for row in rows}
    return Sample({row["addr"]: int(row["weight"]) for row in up}, chosen)


def test_the_share_of_a_warming_unit_follows_its_weight(stage: HaproxyStage) -> None:
    samples: list[Sample] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            samples.append(sample(stage))

    def work(play: Play) -> None:
        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            play.unitctl("warm", f"{SERVICE}:0", *SLOWLY)
            play.stage.until_right()
        finally:
            over.set()
            watcher.join()

    played = Play(stage, RATE, Mix(slow=0.0, echo=0.0, kept=0.5)).run(work)

    assert not played.explained()
    periods = list(by_weight(samples, f"{ADDRESS}:{stage.first_port}"))
    assert {percent for percent, _, _ in periods} >= {*STEPS}, periods
    for percent, chosen, total in periods:
        share = percent / (percent + 3 * 100)
        assert abs(chosen - share * total) <= BOUND * math.sqrt(total * share * (1 - share)) + 1, (percent, periods)


def by_weight(samples: list[Sample], place: str) -> Iterator[tuple[int, int, int]]:
    """For each time that all weights stayed: the place's weight in percent, how often it was chosen, and any server."""
    for weights, group in itertools.groupby(samples, lambda each: each.weights):
        same = list(group)
        first, last = same[0].chosen, same[-1].chosen
        more = {each: last[each] - first.get(each, 0) for each in last}
        if sum(more.values()) >= ENOUGH:
            full = max(weights.values())
            yield round(100 * weights.get(place, 0) / full), more.get(place, 0), sum(more.values())
