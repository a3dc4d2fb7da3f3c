"""Calls to a control center: what is sent, and what counts as an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.model import CenterSpec, TlsSpec
from supervisor.host.center_client import CenterAway, CenterClient
from supervisor.host.http_client import HttpAnswer, HttpFailed
from tests.supervisor.running import run


class Wire:
    """Keeps what is sent, and answers."""

    def __init__(self, *answers: HttpAnswer | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    async def __call__(self, *arguments: Any, **more: Any) -> HttpAnswer:
        self.sent.append((arguments, more))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def _answer(value: Any, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, (), json.dumps(value).encode(), False)


def test_a_call_goes_below_the_url_with_the_token_and_the_body(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    wire = Wire(_answer({"a": 1}))
    tls = TlsSpec(ca="/ca.pem")
    spec = CenterSpec(("https://center.example/below",), token_file=str(tmp_path / "token"), tls=tls)
    answer = run(CenterClient(spec, wire).call("POST", "/v1/x", {"b": 2}, seconds=3.0))
    assert answer == {"a": 1}
    (arguments, more) = wire.sent[0]
    assert arguments == ("center.example", 9300, "POST", "/below/v1/x")
    assert (more["host"], more["body"], more["timeout_seconds"]) == ("center.example", b'{"b":2}', 3.0)
    assert ("Authorization", "Bearer secret") in more["headers"]
    assert more["tls"].verify and more["tls"].ca == "/ca.pem"


def test_an_address_in_brackets_and_a_port_are_understood() -> None:
    wire = Wire(_answer({}))
    run(CenterClient(CenterSpec(("http://[::1]:8000",)), wire).call("GET", "/x", seconds=1.0))
    assert wire.sent[0][0][:2] == ("::1", 8000)
    assert wire.sent[0][1]["tls"] is None and wire.sent[0][1]["host"] == "[::1]:8000"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HttpFailed("connection refused"), "connection refused"),
        (_answer({"detail": "no token"}, 401), "it answered 401: no token"),
        (_answer([1], 500), "it answered 500: without saying why"),
        (HttpAnswer(302, (), b"", False), "it answered 302"),
        (HttpAnswer(200, (), b"{", False), "no JSON object"),
        (_answer([1]), "no JSON object"),
        (HttpAnswer(200, (), b"{}", True), "longer than"),
    ],
)
def test_whatever_is_no_answer_is_worth_another_try(answer: HttpAnswer | Exception, words: str) -> None:
    with pytest.raises(CenterAway, match="cannot ask the control center") as caught:
        run(CenterClient(CenterSpec(("http://127.0.0.1:1",)), Wire(answer)).call("GET", "/x", seconds=1.0))
    assert words in caught.value.reason


def test_a_token_that_cannot_be_read_is_said_and_nothing_is_sent(tmp_path: Path) -> None:
    wire = Wire(_answer({}))
    spec = CenterSpec(("http://127.0.0.1:1",), token_file=str(tmp_path / "none"))
    with pytest.raises(CenterAway, match="cannot read its token"):
        run(CenterClient(spec, wire).call("GET", "/x", seconds=1.0))
    assert not wire.sent


def test_trouble_is_said_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    wire = Wire(HttpFailed("away"), HttpFailed("away"), HttpFailed("away"), _answer({}), _answer({}))
    client = CenterClient(CenterSpec(("http://127.0.0.1:1", "http://127.0.0.1:2")), wire)

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(CenterAway):
                await client.call("GET", "/x", seconds=1.0)
        for _ in range(2):
            await client.call("GET", "/x", seconds=1.0)

    run(scenario())
    assert [arguments[1] for arguments, _ in wire.sent] == [1, 2, 1, 2, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "http://127.0.0.1:1 does not answer as it should: away; trying again",
        "http://127.0.0.1:2 answers",
    ]
