"""What load balancers ask on the checks port, and what they are told: bytes in, questions out, answers back to bytes.

Two languages share the port, and the first line tells which it is:

- HAProxy's agent-check (its configuration manual, `agent-check`): one line, the unit's name; the answer is one line,
  and the connection ends.
- HTTP/1.0 and 1.1, of the little that checks use: no bodies, a few headers. `/check/UNIT` names the unit; `/check`
  leaves it to the header X-Haproxy-Server-State (`http-check send-state`), in which HAProxy says where the server is
  that it checks, whether it sends to it, and how much it has open there.

Of HTTP's answers 404 is the one for "nothing new, let the rest finish" (`http-check disable-on-404`), so nothing else
is ever answered with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import unquote

MAX_LINE_BYTES = 512  # of an agent's question, and of HTTP's first line
MAX_HEAD_BYTES = 8 * 1024
MAX_NAME = 128  # characters of a gateway's name, and of its server's

_REQUEST = re.compile(rb"([A-Z]{1,16}) (\S+) HTTP/1\.([01])")
_METHOD = re.compile(rb"[A-Z]{1,16} ")  # no unit's name has a space
_METHODS = (b"GET", b"HEAD", b"OPTIONS")
_STATE_HEADER = b"x-haproxy-server-state"
_REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large",
    414: "URI Too Long", 431: "Request Header Fields Too Large", 503: "Service Unavailable",
}  # fmt: skip


class Word(Enum):
    """What a load balancer is to do with a unit."""

    READY = "ready"  # send it its share
    DRAIN = "drain"  # send nothing new, let what it has finish
    DOWN = "down"  # it cannot be sent to


@dataclass(frozen=True, slots=True)
class Standing:
    """How a unit stands: `percent` of its full weight, 1 to 100, while it is ready; `why` not, in words."""

    word: Word
    percent: int = 100
    why: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What a gateway says of one of its servers. `sends`: it may send new requests there."""

    node: str  # the gateway, as it calls itself
    name: str  # the server, as it calls it: backend/server
    address: str
    port: int
    sends: bool
    in_flight: int | None = None  # what it has open there; None: it does not say


@dataclass(frozen=True, slots=True)
class Question:
    """One check. It speaks of `unit`, or ("") of the unit that `view` is about."""

    unit: str = ""
    view: View | None = None
    http: bool = False
    has_body: bool = True  # HEAD wants none
    keeps_open: bool = False
    problem: int = 0  # HTTP's status where the question cannot be answered


@dataclass(slots=True)
class Reader:
    """One connection's bytes on their way to questions. Once `ended`, nothing more is read."""

    ended: bool = False
    _buffer: bytearray = field(default_factory=bytearray)
    _speaks_http: bool = False

    def feed(self, data: bytes) -> list[Question]:
        """The questions that are whole now, in their order."""
        self._buffer += data
        questions = []
        while not self.ended and (question := self._next()) is not None:
            questions.append(question)
            self.ended = not question.keeps_open
        return questions

    def _next(self) -> Question | None:
        while self._buffer[:2] == b"\r\n":  # between two requests (RFC 9112, 2.2)
            del self._buffer[:2]
        line, newline, _ = self._buffer[: MAX_LINE_BYTES + 1].partition(b"\n")
        if not newline:
            return self._too_long(414) if len(line) > MAX_LINE_BYTES else None
        request = _REQUEST.fullmatch(line.rstrip(b"\r"))
        if request is None:
            return Question(problem=400, http=True) if self._speaks_http else _named(bytes(line))
        self._speaks_http = True
        return self._read_head(request)

    def _too_long(self, status: int) -> Question:
        return Question(problem=status, http=self._speaks_http or _METHOD.match(self._buffer) is not None)

    def _read_head(self, request: re.Match[bytes]) -> Question | None:
        end = re.compile(rb"\r?\n\r?\n").search(self._buffer, 0, MAX_HEAD_BYTES + 4)
        if end is None:
            return self._too_long(431) if len(self._buffer) > MAX_HEAD_BYTES else None
        head = bytes(self._buffer[: end.start()])
        del self._buffer[: end.end()]
        return _requested(request[1], request[2], request[3] == b"1", _headers(head))


def _named(line: bytes) -> Question:
    """An agent's question."""
    return Question(line.strip().decode("utf-8", "replace"))


def _headers(head: bytes) -> dict[bytes, bytes]:
    """By name in lower case; the last of equal names counts."""
    pairs = (line.partition(b":") for line in head.split(b"\n")[1:])
    return {name.strip().lower(): value.strip() for name, colon, value in pairs if colon}


def _requested(method: bytes, target: bytes, is_1_1: bool, headers: dict[bytes, bytes]) -> Question:
    wanted = headers.get(b"connection", b"").lower()
    keeps_open = b"close" not in wanted if is_1_1 else b"keep-alive" in wanted
    has_body = method != b"HEAD"
    if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
        return Question(problem=413, http=True, has_body=has_body)  # where its body ends is not looked for
    if method not in _METHODS:
        return Question(problem=405, http=True, has_body=has_body, keeps_open=keeps_open)
    unit = _unit_in(target.partition(b"?")[0])
    view = parse_state(headers.get(_STATE_HEADER, b"").decode("utf-8", "replace"))
    problem = 503 if unit is None or (not unit and view is None) else 0
    return Question(unit or "", view, True, has_body, keeps_open, problem)


def _unit_in(path: bytes) -> str | None:
    """ "": the request does not name one; None: it asks for something else."""
    if path in (b"/", b"*", b"/check", b"/check/"):
        return ""
    if not path.startswith(b"/check/"):
        return None
    return unquote(path[len(b"/check/") :].decode("utf-8", "replace"))


def parse_state(text: str) -> View | None:
    """What X-Haproxy-Server-State says, such as `UP; address=10.0.0.7; port=80; name=b/s; node=gw; weight=1/2; ...`.

    None: it is not of that form. The state is UP or NOLB, or DOWN; a server with a weight of 0 gets nothing new.
    """
    if not text.isprintable():  # it is shown to people
        return None
    state, *parts = [part.strip() for part in text.split(";")]
    facts = dict(part.partition("=")[::2] for part in parts)
    port = _first_number(facts.get("port", ""))
    if not state or not facts.get("name") or port is None:
        return None
    sends = state.split()[0] == "UP" and _first_number(facts.get("weight", "")) != 0
    node, name, address = (facts.get(key, "")[:MAX_NAME] for key in ("node", "name", "address"))
    return View(node or "haproxy", name, address, port, sends, _first_number(facts.get("scur", "")))


def _first_number(text: str) -> int | None:
    """Of `13/22`."""
    word = text.partition("/")[0]
    return int(word) if word.isdecimal() and len(word) < 10 else None


# Answers.

UNKNOWN = Standing(Word.DOWN, why="there is no such unit here")
_STATUS = {Word.READY: 200, Word.DRAIN: 404, Word.DOWN: 503}


def answer(question: Question, standing: Standing) -> bytes:
    """What is sent back."""
    line = agent_line(standing)
    if not question.http:
        return b"down # the line is too long\n" if question.problem else line
    status = question.problem or _STATUS[standing.word]
    body = line if not question.problem else f"{_REASONS[status]}: ask for /check/UNIT\n".encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n"
        f"Connection: {'keep-alive' if question.keeps_open else 'close'}\r\n\r\n"
    )
    return head.encode() + (body if question.has_body else b"")


def agent_line(standing: Standing) -> bytes:
    """In the words of an agent. `ready` takes back an earlier `drain`, which `up` alone does not."""
    if standing.word is Word.READY:
        return f"ready up {standing.percent}%\n".encode()
    if standing.word is Word.DRAIN:
        return b"drain\n"
    why = " ".join(standing.why.split())[:200]
    return f"down # {why}\n".encode() if why else b"down\n"
