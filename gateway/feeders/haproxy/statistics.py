"""What HAProxy's counters tell of servers: health, requests in flight, what has gone wrong since the last look. Pure.

The columns are those of the management guide, "9.1. CSV format".
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, fields

from gateway.model import Failure, Finding, Health, Recovery, Server, Standing, Symptom

STEADY_SECONDS = 2  # for which a server must be up before that counts as a recovery

_SYMPTOMS = {
    "L4CON": Symptom.CONNECT_REFUSED,
    "L4TOUT": Symptom.CONNECT_TIMEOUT,
    "L6TOUT": Symptom.RESPONSE_TIMEOUT,
    "L7TOUT": Symptom.RESPONSE_TIMEOUT,
    "HANA": Symptom.ERROR_ANSWERS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A server's line. Names are HAProxy's; what is not given is "" or 0."""

    status: str = ""
    check_status: str = ""
    last_chk: str = ""
    lastchg: int = 0  # seconds since it went up or down
    chkdown: int = 0
    scur: int = 0
    qcur: int = 0
    stot: int = 0
    econ: int = 0
    wredis: int = 0
    eresp: int = 0
    srv_abrt: int = 0
    weight: int = 0
    uweight: int = 0
    hrsp_1xx: int = 0
    hrsp_2xx: int = 0
    hrsp_3xx: int = 0
    hrsp_4xx: int = 0
    hrsp_5xx: int = 0

    @property
    def answers(self) -> int:
        """All answers so far."""
        return self.hrsp_1xx + self.hrsp_2xx + self.hrsp_3xx + self.hrsp_4xx + self.hrsp_5xx

    @property
    def connect_failures(self) -> int:
        """Requests that could not be sent: given up, or sent to another server."""
        return self.econ + self.wredis

    @property
    def down(self) -> bool:
        """HAProxy sends it nothing because of what it has seen."""
        return self.status.startswith("DOWN")

    @property
    def health(self) -> Health:
        """In the words of the model."""
        if self.down:
            return Health.DOWN
        checked = self.check_status.lstrip("* ")  # a star: a check is under way
        return Health.UP if self.status.startswith("UP") or checked.endswith(("OK", "OKC")) else Health.UNKNOWN


_TEXTS = {"status", "check_status", "last_chk"}
_NAMES = [each.name for each in fields(Row)]


def parse_stat(text: str) -> dict[tuple[str, str], Row]:
    """The servers of an answer to `show stat`: (backend, server) -> line."""
    rows = csv.reader(text.removeprefix("# ").splitlines())
    columns = {name: index for index, name in enumerate(next(rows, []))}
    wanted = [(name, columns[name]) for name in _NAMES if name in columns]
    return {(row[0], row[1]): _row(row, wanted) for row in rows if len(row) > 2}


def _row(row: list[str], wanted: list[tuple[str, int]]) -> Row:
    found = {name: row[index] for name, index in wanted if index < len(row)}
    texts = {name: value for name, value in found.items() if name in _TEXTS}
    numbers = {name: int(value) for name, value in found.items() if name not in _TEXTS and value.lstrip("-").isdigit()}
    return Row(**texts, **numbers)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of a server at the last look. `down`: it was reported as down."""

    server: Server
    row: Row
    down: bool = False


def judge(server: Server, before: Sight | None, row: Row, error_percent: float) -> tuple[Sight, list[Finding]]:
    """What the next look compares with, and what has happened since the last one.

    Another generation begins anew, and so does a process of HAProxy's whose counters do.
    """
    if before is not None and before.server.key != server.key:
        before = None
    was_down = before is not None and before.down
    if server.standing is not Standing.SERVING:
        return Sight(server, row, was_down), []
    base = before.row if before is not None and before.row.stot <= row.stot else None
    found = _traffic(server, base, row, error_percent) if base is not None else []
    if row.down:
        return Sight(server, row, True), found if was_down else [*found, _down(server, row)]
    if was_down:
        steady = row.lastchg >= STEADY_SECONDS
        return Sight(server, row, not steady), [*found, Recovery(server.service, *server.key)] if steady else found
    if base is not None and row.chkdown > base.chkdown:  # down and up again between two looks
        found.append(_failure(server, symptom_of(row), row.chkdown - base.chkdown, f"was down: {_why(row)}"))
    return Sight(server, row), found


def _down(server: Server, row: Row) -> Failure:
    return Failure(server.service, *server.key, symptom_of(row), down=True, detail=_why(row))


def _traffic(server: Server, base: Row, row: Row, error_percent: float) -> list[Finding]:
    """Failures that the requests have met."""
    refused = row.connect_failures - base.connect_failures
    silent, fives = row.eresp - base.eresp, row.hrsp_5xx - base.hrsp_5xx
    found: list[Finding] = []
    if refused > 0:
        late = symptom_of(row) is Symptom.CONNECT_TIMEOUT
        symptom = Symptom.CONNECT_TIMEOUT if late else Symptom.CONNECT_REFUSED
        found.append(_failure(server, symptom, refused, f"{refused} requests could not be sent"))
    if silent > 0:
        cut = row.srv_abrt > base.srv_abrt or refused > 0  # HAProxy counts both alike: it died, rather than hangs
        symptom = Symptom.ERROR_ANSWERS if cut else Symptom.RESPONSE_TIMEOUT
        found.append(_failure(server, symptom, silent, f"{silent} requests got no {'whole ' if cut else ''}answer"))
    if fives > 0 and fives * 100 >= error_percent * (row.answers - base.answers):
        found.append(_failure(server, Symptom.ERROR_ANSWERS, fives, f"{fives} answers were 5xx"))
    return found


def _failure(server: Server, symptom: Symptom, count: int, detail: str) -> Failure:
    return Failure(server.service, *server.key, symptom, count=count, detail=detail)


def symptom_of(row: Row) -> Symptom:
    """What the health checks see, in the control center's words."""
    return _SYMPTOMS.get(row.check_status.lstrip("* "), Symptom.CHECK_FAILED)


def _why(row: Row) -> str:
    return f"{row.check_status.lstrip('* ')} {row.last_chk}".strip()[:200]


def in_flight(rows: list[Mapping[tuple[str, str], Row]], backend: str, names: set[str]) -> int:
    """Requests at these servers, sent or queued, in all processes."""
    return sum(row.scur + row.qcur for each in rows for name in names if (row := each.get((backend, name))) is not None)
