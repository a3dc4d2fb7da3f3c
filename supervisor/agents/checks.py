"""Answers what load balancers ask of units on the checks port: what the registry is told is what they are told.

Whether a registry can be reached does not matter here: a unit that would be in it may be sent to.
"""

from __future__ import annotations

import math

from ..core.checking import UNKNOWN, Question, Standing, View, Word, answer
from ..core.lifecycle import state_word
from ..core.model import Phase
from ..host.clock import monotonic
from ..host.runner import Runner, Runners
from .publisher import Publisher, can_answer, is_published
from .registries import Registries
from .sightings import Sightings

_AWAY = (Phase.EXPIRING, Phase.SETTLING, Phase.DRAINING)
_REBUILD_SECONDS = 1.0  # where units are is looked up anew so often at most


class Checks:
    """All units of the host, for whoever asks."""

    def __init__(self, runners: Runners, registries: Registries, publisher: Publisher, sightings: Sightings) -> None:
        self._runners, self._registries, self._publisher = runners, registries, publisher
        self._sightings = sightings
        self._places: dict[tuple[str, int], str] = {}
        self._places_at = -math.inf

    def answer(self, question: Question, peer: str) -> bytes:
        """What to send back to the gateway at that address."""
        if question.problem:
            return answer(question, UNKNOWN)
        name = question.unit or (self._unit_at(question.view) if question.view is not None else "")
        standing = self.standing(name)
        if name in self._runners.by_name:
            if question.view is not None:
                self._sightings.state(name, question.view, peer)
            elif not question.http:
                self._sightings.poll(name, peer, ready=standing.word is Word.READY)
        return answer(question, standing)

    def standing(self, name: str) -> Standing:
        """How a unit stands now."""
        runner = self._runners.by_name.get(name)
        if runner is None:
            return UNKNOWN
        unit = runner.unit
        leaves = unit.phase in _AWAY or (unit.phase is Phase.RUNNING and unit.drained)
        if leaves and can_answer(unit):
            return Standing(Word.DRAIN)
        if unit.phase is Phase.RUNNING and unit.healthy:
            return self._serving(runner)
        words = [state_word(unit).lower(), unit.reason]
        return Standing(Word.DOWN, why=": ".join(filter(None, words)))

    def _serving(self, runner: Runner) -> Standing:
        service = runner.spec.service
        if service is None:
            return Standing(Word.READY)
        weight = self._publisher.weight(runner)
        if not weight or not is_published(runner.unit) or not self._registries.keeps(runner.spec.name):
            return Standing(Word.DRAIN)  # it may not be found yet, or not any more
        return Standing(Word.READY, min(100, max(1, round(100 * weight / service.weight))))

    def _unit_at(self, view: View) -> str:
        """The unit that a gateway means, by its address, or else by what the gateway calls it; "": none of ours."""
        place = view.address, view.port
        if not self._is_at(self._places.get(place), place) and monotonic() - self._places_at > _REBUILD_SECONDS:
            self._places, self._places_at = self._look(), monotonic()
        name = self._places.get(place)
        if name is not None and self._is_at(name, place):
            return name
        called = view.name.rpartition("/")[2]
        return called if called in self._runners.by_name else ""

    def _is_at(self, name: str | None, place: tuple[str, int]) -> bool:
        runner = self._runners.by_name.get(name) if name is not None else None
        service = runner.spec.service if runner is not None else None
        return service is not None and (service.address, service.port) == place

    def _look(self) -> dict[tuple[str, int], str]:
        services = ((name, runner.spec.service) for name, runner in self._runners.by_name.items())
        return {(service.address, service.port): name for name, service in services if service is not None}
