"""Follows Envoy's log of ejections: one JSON object a line (OutlierDetectionEvent, `event_log_path`)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from ..model import Symptom
from .envoy_file import Place

MAX_BYTES = 1024 * 1024  # of one look; more than that is skipped, for what is old proves nothing
_SYMPTOMS = {
    "CONSECUTIVE_LOCAL_ORIGIN_FAILURE": Symptom.CONNECT_REFUSED,
    "SUCCESS_RATE_LOCAL_ORIGIN": Symptom.CONNECT_REFUSED,
    "FAILURE_PERCENTAGE_LOCAL_ORIGIN": Symptom.CONNECT_REFUSED,
}


@dataclass(frozen=True, slots=True)
class Ejection:
    """Envoy has taken a server out, for a while. `symptom` None: its answers, or that there were none."""

    cluster: str
    place: Place
    kind: str
    symptom: Symptom | None
    number: int


class EventLog:
    """What is appended to a log from the first look on; the log may be rotated, truncated, and not be there yet."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inode: int | None = None
        self._offset = 0
        self._begun = False

    def read(self) -> list[Ejection]:
        """The ejections since the call before. The first call gives none: it is where the reading begins."""
        try:
            with open(self._path, "rb") as file:
                lines = self._lines(file.fileno())
        except OSError:  # not there yet, or just being rotated
            lines = []
        self._begun = True
        return [event for event in map(parse, lines) if event is not None]

    def _lines(self, descriptor: int) -> list[bytes]:
        status = os.fstat(descriptor)
        if status.st_ino != self._inode or status.st_size < self._offset:
            # Another file than before is read from its beginning; what stood in the first one is history.
            self._offset = 0 if self._begun else status.st_size
            self._inode = status.st_ino
        self._offset = max(self._offset, status.st_size - MAX_BYTES)
        whole, newline, _ = os.pread(descriptor, MAX_BYTES, self._offset).rpartition(b"\n")
        self._offset += len(whole) + len(newline)  # a line that is being written is read when it has ended
        return whole.split(b"\n")


def parse(line: bytes) -> Ejection | None:
    """One line; None: it tells of no ejection that was carried out."""
    try:
        event = json.loads(line)
        if event["action"] != "EJECT" or not event.get("enforced", False):
            return None
        address, _, port = event["upstream_url"].rpartition(":")
        kind, number = str(event.get("type", "CONSECUTIVE_5XX")), int(event.get("num_ejections", 1))
        place = address.strip("[]"), int(port)
        return Ejection(str(event["cluster_name"]), place, kind, _SYMPTOMS.get(kind), number)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
