"""What nginx's logs tell of the servers: failures, recoveries, and how many requests each has been sent.

With `max_fails`, nginx sends nothing to a server that has failed for `fail_timeout`, then one request to see: three
failures in a short time may never come together. So a server that nginx has disabled counts as taken out (`down`) when
it could not even be connected to, or when it is disabled again after that time with no good answer between: a few slow
answers, which may well come together, are no death.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from ..model import Failure, Finding, Health, Key, Recovery, ServerView, Symptom
from ..settings.nginx import NginxSpec
from .nginx_logs import BEHIND_BYTES, STEP_BYTES, Tail, attempts, trouble
from .nginx_text import Lines, upstream_name

log = logging.getLogger("unit-gateway.nginx")

_FEW = 5  # answers: fewer in one look make no share
_FROM_NGINX = (502, 504)  # what it notes itself for a server that gave no answer
_CONNECTING = (Symptom.CONNECT_REFUSED, Symptom.CONNECT_TIMEOUT)

Owner = tuple[str, Key]  # a service, and one of its servers


@dataclass(slots=True)
class _Seen:
    """Of one server; what has to do with failures is since the last look, but for `ill` and `disabled`."""

    failures: dict[Symptom, int] = field(default_factory=dict)
    detail: str = ""
    good: int = 0
    bad: int = 0
    total: int = 0
    ill: bool = False  # has failed, and has not answered well since
    disabled: int = 0  # how often, with no good answer since; what comes together counts once
    disabled_at: float = float("-inf")
    down: bool = False

    def note(self, symptom: Symptom, words: str) -> None:
        self.failures[symptom] = self.failures.get(symptom, 0) + 1
        self.detail = words

    def note_disabled(self, symptom: Symptom, words: str, now: float, fail_timeout_seconds: float) -> None:
        """The failure itself has a line of its own in the log, before this one."""
        if now - self.disabled_at >= fail_timeout_seconds:
            self.disabled, self.disabled_at = self.disabled + 1, now
        self.down = symptom in _CONNECTING or self.disabled > 1
        self.detail = self.detail or words
        self.failures.setdefault(symptom, 0 if self.failures else 1)

    def note_answer(self, status: int) -> None:
        self.total += 1
        if 500 <= status < 600:
            self.bad += status not in _FROM_NGINX
        elif status:
            self.good += 1
            self.disabled, self.disabled_at, self.down = 0, float("-inf"), False

    def findings(self, service: str, key: Key, error_percent: float) -> list[Finding]:
        """What has happened since the last time, which begins anew."""
        answers = self.good + self.bad
        if answers >= _FEW and 100 * self.bad >= error_percent * answers:
            count = self.failures.get(Symptom.ERROR_ANSWERS, 0) + self.bad
            self.failures[Symptom.ERROR_ANSWERS] = count
            self.detail = self.detail or f"{self.bad} of {answers} answers were 5xx"
        found: list[Finding] = [
            Failure(service, *key, symptom, count, self.down, self.detail)
            for symptom, count in self.failures.items()
            if count
        ]
        if self.ill and not found and self.good:
            found = [Recovery(service, *key)]
        self.ill = bool(found and isinstance(found[0], Failure)) or (self.ill and not found)
        self.failures, self.detail, self.good, self.bad = {}, "", 0, 0
        return found

    @property
    def health(self) -> Health:
        if self.disabled:
            return Health.DOWN
        return Health.UP if self.total and not self.ill else Health.UNKNOWN


class Evidence:
    """Follows the logs of one nginx. Who owns which place is told by `know`."""

    def __init__(self, spec: NginxSpec, clock: Callable[[], float] = monotonic) -> None:
        self._spec, self._clock = spec, clock
        self._errors = Tail(spec.error_log) if spec.error_log else None
        self._answers = Tail(spec.access_log) if spec.access_log else None
        self._services: Mapping[str, Lines] = {}
        self._owners: dict[str, list[Owner]] = {}
        self._of_upstream: dict[str, str] = {}
        self._seen: dict[Owner, _Seen] = {}
        self._without: dict[str, int] = {}  # service -> how often no server of it was left, since the last look
        self._complained: set[str] = set()

    def begin(self) -> None:
        """What is in the logs already is not for us."""
        for tail in filter(None, (self._errors, self._answers)):
            tail.begin()

    def know(self, services: Mapping[str, Lines]) -> None:
        """These servers there are from now on; read first what was written before."""
        self._services, self._owners = services, {}
        for service, lines in services.items():
            for line in lines:
                self._owners.setdefault(line.place, []).append((service, line.key))
        self._of_upstream = {upstream_name(self._spec.upstream, service): service for service in services}
        present = {owner for owners in self._owners.values() for owner in owners}
        self._seen = {owner: seen for owner, seen in self._seen.items() if owner in present}

    async def read(self) -> None:
        """All that has been written, in steps between which others get their turn."""
        await self._each(self._errors, self._note_error)
        await self._each(self._answers, self._note_answers)

    def take(self) -> tuple[Finding, ...]:
        """What has happened since this was called last."""
        self._without = {}
        return tuple(
            finding
            for (service, key), seen in self._seen.items()
            for finding in seen.findings(service, key, self._spec.error_percent)
        )

    def views(self) -> tuple[ServerView, ...]:
        """All servers that nginx has."""
        return tuple(
            self._view(service, line.key, line.weight) for service, lines in self._services.items() for line in lines
        )

    def close(self) -> None:
        """May be called twice."""
        for tail in filter(None, (self._errors, self._answers)):
            tail.close()

    def _view(self, service: str, key: Key, weight: int) -> ServerView:
        seen = self._seen.get((service, key))
        without = self._without.get(service, 0)
        detail = seen.detail if seen else ""
        if without and not detail:
            detail = f"no server of {service} was left, for {without} requests"
        total = (seen.total if seen else 0) if self._answers else None
        return ServerView(service, *key, seen.health if seen else Health.UNKNOWN, None, weight, total, detail)

    async def _each(self, tail: Tail | None, note: Callable[[str], None]) -> None:
        if tail is None:
            return
        skipped = tail.skipped_bytes
        for _ in range(2 * BEHIND_BYTES // STEP_BYTES):
            lines = tail.step()
            if lines is None:
                break
            for line in lines:
                note(line)
            await asyncio.sleep(0)
        self._complain(tail, tail.skipped_bytes - skipped)

    def _complain(self, tail: Tail, skipped: int) -> None:
        """Once for each reason, not at each look."""
        if tail.complaint and tail.complaint not in self._complained:
            log.warning("%s: cannot read %s: %s", self._spec.name, tail.path, tail.complaint)
            self._complained.add(tail.complaint)
        if skipped:
            log.info("%s: passed over %d bytes of %s, which grows too fast", self._spec.name, skipped, tail.path)

    def _note_error(self, line: str) -> None:
        said = trouble(line)
        if said is None:
            return
        if said.symptom is None:
            service = self._of_upstream.get(said.name, "")
            self._without[service] = self._without.get(service, 0) + 1
            return
        for owner in self._owners.get(said.name, ()):
            seen = self._seen.setdefault(owner, _Seen())
            if said.disabled:
                seen.note_disabled(said.symptom, said.words, self._clock(), self._spec.fail_timeout_seconds)
            else:
                seen.note(said.symptom, said.words)

    def _note_answers(self, line: str) -> None:
        for place, status in attempts(line):
            for owner in self._owners.get(place, ()):
                self._seen.setdefault(owner, _Seen()).note_answer(status)
