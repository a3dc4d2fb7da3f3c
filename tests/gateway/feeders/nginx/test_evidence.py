"""What the nginx feeder makes of the logs' lines: when a server has failed, is down, and is well again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.feeders.nginx_evidence import Evidence
from gateway.feeders.nginx_text import Line
from gateway.model import Failure, Finding, Health, Recovery, ServerView, Symptom
from gateway.settings.nginx import NginxSpec

A, B = Line("a", 1, "10.0.0.1", 80, 2), Line("b", 4, "10.0.0.2", 80, 1)


class Nginx:
    """What nginx would write, and what is found in it."""

    def __init__(self, folder: Path, *, access: bool = True) -> None:
        self.error_log, self.access_log = folder / "error.log", folder / "access.log"
        self.now = 1000.0
        spec = NginxSpec(
            name="front", error_log=str(self.error_log), access_log=str(self.access_log) if access else None
        )
        self.evidence = Evidence(spec, lambda: self.now)
        self.evidence.begin()
        self.evidence.know({"cart": (A, B), "none": ()})

    def fails(self, line: Line, words: str, level: str = "error") -> None:
        with self.error_log.open("a") as file:
            file.write(
                f"2026/11/24 16:37:34 [{level}] 1#1: *1 {words}, client: 127.0.0.1, server: , "
                f'request: "GET / HTTP/1.1", upstream: "http://{line.place}/", host: "x"\n'
            )

    def refuses(self, line: Line) -> None:
        self.fails(line, "connect() failed (111: Connection refused) while connecting to upstream")

    def times_out(self, line: Line) -> None:
        self.fails(line, "upstream timed out (110: Connection timed out) while reading response header from upstream")

    def disables(self, line: Line, doing: str) -> None:
        self.fails(line, f"upstream server temporarily disabled while {doing} upstream", "warn")

    def answers(self, line: Line, status: int = 200, times: int = 1) -> None:
        with self.access_log.open("a") as file:
            file.write(f"1.5 {status} 0.001 | {line.place} | {status} | 0.001\n" * times)

    def found(self) -> list[Finding]:
        asyncio.run(self.evidence.read())
        return list(self.evidence.take())

    def view(self, name: str = "a") -> ServerView:
        asyncio.run(self.evidence.read())
        return next(view for view in self.evidence.views() if view.instance == name)


@pytest.fixture
def nginx(tmp_path: Path) -> Nginx:
    return Nginx(tmp_path)


def only(found: list[Finding]) -> Failure:
    assert len(found) == 1
    assert isinstance(found[0], Failure)
    return found[0]


def test_failures_are_counted_by_server_and_symptom_and_told_once(nginx: Nginx) -> None:
    for _ in range(3):
        nginx.refuses(A)
    nginx.times_out(B)
    words = "connect() failed (111: Connection refused) while connecting to upstream"
    first, second = nginx.found()
    assert first == Failure("cart", "a", 1, Symptom.CONNECT_REFUSED, 3, False, words)
    assert isinstance(second, Failure) and (second.instance, second.generation) == ("b", 4)
    assert nginx.found() == []


def test_a_server_that_cannot_be_connected_to_and_is_disabled_is_down(nginx: Nginx) -> None:
    nginx.refuses(A)
    nginx.disables(A, "connecting to")
    failure = only(nginx.found())
    assert (failure.symptom, failure.count, failure.down) == (Symptom.CONNECT_REFUSED, 1, True)
    assert nginx.view().health is Health.DOWN


def test_a_server_that_is_slow_is_down_only_when_it_is_disabled_again_later(nginx: Nginx) -> None:
    for _ in range(2):
        nginx.times_out(A)
        nginx.disables(A, "reading response header from")
    assert not only(nginx.found()).down
    nginx.now += 7
    nginx.times_out(A)
    nginx.disables(A, "reading response header from")
    failure = only(nginx.found())
    assert (failure.symptom, failure.count, failure.down) == (Symptom.RESPONSE_TIMEOUT, 1, True)


def test_a_good_answer_between_makes_it_slow_again_and_not_down(nginx: Nginx) -> None:
    nginx.times_out(A)
    nginx.disables(A, "reading response header from")
    nginx.found()
    nginx.answers(A)
    nginx.found()
    nginx.now += 7
    nginx.times_out(A)
    nginx.disables(A, "reading response header from")
    assert not only(nginx.found()).down


def test_a_server_that_answers_after_failures_is_well_again_which_is_told_once(nginx: Nginx) -> None:
    nginx.refuses(A)
    nginx.found()
    nginx.answers(A)
    assert nginx.found() == [Recovery("cart", "a", 1)]
    nginx.answers(A)
    assert nginx.found() == []
    assert nginx.view().health is Health.UP


def test_a_server_that_both_fails_and_answers_is_not_well(nginx: Nginx) -> None:
    nginx.refuses(A)
    nginx.answers(A, 200, 3)
    assert only(nginx.found()).symptom is Symptom.CONNECT_REFUSED


def test_some_errors_among_the_answers_are_no_failure_and_half_of_them_are(nginx: Nginx) -> None:
    nginx.answers(A, 200, 6)
    nginx.answers(A, 500, 5)
    assert nginx.found() == []
    nginx.answers(A, 404, 5)
    nginx.answers(A, 503, 5)
    failure = only(nginx.found())
    assert (failure.symptom, failure.count, failure.detail) == (Symptom.ERROR_ANSWERS, 5, "5 of 10 answers were 5xx")


def test_few_answers_make_no_share_and_what_nginx_notes_itself_is_no_answer(nginx: Nginx) -> None:
    nginx.answers(A, 500, 4)
    nginx.answers(A, 502, 10)
    nginx.answers(A, 504, 10)
    assert nginx.found() == []


def test_views_tell_weights_and_requests_so_far(nginx: Nginx) -> None:
    nginx.answers(A, 200, 3)
    nginx.answers(A, 502)
    assert nginx.view() == ServerView("cart", "a", 1, Health.UP, None, 2, 4, "")
    assert nginx.view("b") == ServerView("cart", "b", 4, Health.UNKNOWN, None, 1, 0, "")


def test_a_service_of_which_no_server_is_left_is_told_in_its_views(nginx: Nginx) -> None:
    nginx.fails(Line("", 1, "cart", 0, 1), "no live upstreams while connecting to upstream")
    with nginx.error_log.open() as file:
        nginx.error_log.write_text(file.read().replace("cart:0", "cart"))
    assert nginx.view().detail == "no server of cart was left, for 1 requests"
    assert nginx.found() == []
    assert nginx.view().detail == ""


def test_a_new_generation_at_the_same_place_begins_without_failures(nginx: Nginx) -> None:
    nginx.refuses(A)
    asyncio.run(nginx.evidence.read())
    nginx.evidence.know({"cart": (Line("a", 2, A.address, A.port, 2), B)})
    assert nginx.found() == []
    nginx.refuses(A)
    assert only(nginx.found()).generation == 2


def test_one_place_of_two_services_is_told_for_both(nginx: Nginx) -> None:
    nginx.evidence.know({"cart": (A,), "other": (A,)})
    nginx.refuses(A)
    assert {finding.service for finding in nginx.found()} == {"cart", "other"}


def test_a_place_that_is_no_server_of_ours_is_passed_over(nginx: Nginx) -> None:
    other = Line("x", 1, "10.9.9.9", 80, 1)
    nginx.refuses(other)
    nginx.answers(other)
    assert nginx.found() == []


def test_without_an_access_log_there_are_failures_and_no_totals(tmp_path: Path) -> None:
    nginx = Nginx(tmp_path, access=False)
    nginx.refuses(A)
    assert only(nginx.found()).instance == "a"
    assert nginx.view().total is None
