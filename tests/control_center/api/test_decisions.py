"""Reports and decisions over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from control_center.model import Decision, Verdict

from .site import STARTED, center

REPORT: dict[str, Any] = {
    "service": "cart", "instance": "web-1/cart:0", "generation": 4, "symptom": "connect_refused", "count": 3,
    "first_seen": "2026-11-24T10:00:00+02:00",
}  # fmt: skip


async def test_reports_are_kept_as_evidence_and_counted(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        answer = await site.post("/v1/reports", {"gateway": "root", "reports": [REPORT]})
        assert (answer.status, answer.json) == (202, {"accepted": 1, "decisions": []})
        ((report, _, _),) = await site.store.reports(0)
        assert (report.gateway, report.instance, report.generation) == ("root", "web-1/cart:0", 4)
        assert (report.first_seen, report.state) == ("2026-11-24T08:00:00.000Z", "dead")
        metrics = (await site.get("/metrics")).body.decode()
        assert 'unit_center_reports_total{symptom="connect_refused"} 1.0' in metrics
        cleared = {**REPORT, "state": "cleared"}
        assert (await site.post("/v1/reports", {"gateway": "root", "reports": [cleared]})).status == 202
        assert await site.store.reports(0) == []


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"symptom": "conect_refused"}, "reports[0].symptom: must be one of"),
    ({"generation": None}, "reports[0].generation: is missing"),
    ({"generation": "4"}, "reports[0].generation"),
    ({"count": 0}, "reports[0].count"),
    ({"first_seen": "just now"}, "reports[0].first_seen: must be ISO 8601"),
    ({"state": "alive"}, "reports[0].state"),
    ({"severity": 1}, "reports[0].severity: unknown member"),
]


async def test_mistakes_in_reports_are_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        for changed, words in MISTAKES:
            answer = await site.post("/v1/reports", {"gateway": "root", "reports": [{**REPORT, **changed}, REPORT]})
            assert (answer.status, answer.code) == (400, "bad_request"), changed
            assert words in answer.json["detail"], changed
        assert await site.store.reports(0) == []


async def test_too_many_reports_at_once_are_refused(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        answer = await site.post("/v1/reports", {"gateway": "root", "reports": [REPORT] * 1001})
        assert (answer.status, answer.code) == (400, "bad_request")


async def test_decisions_are_paged_and_filtered(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        for service in ("cart", "pay", "cart"):
            made = Decision(STARTED, service, f"web-1/{service}:0", 1, Verdict.REFUSE, "quorum", "one voice", {"n": 1})
            await site.store.add_decision(made, epoch=None)
        everything = (await site.get("/v1/decisions")).json["decisions"]
        assert [each["id"] for each in everything] == [3, 2, 1]
        assert everything[0]["evidence"] == {"n": 1} and everything[0]["verdict"] == "refuse"
        assert [each["id"] for each in (await site.get("/v1/decisions?before=3&limit=1")).json["decisions"]] == [2]
        assert [each["id"] for each in (await site.get("/v1/decisions?service=pay")).json["decisions"]] == [2]
        path = "/v1/decisions?instance=web-1/cart:0"
        assert [each["id"] for each in (await site.get(path)).json["decisions"]] == [3, 1]
        assert (await site.get("/v1/decisions/2")).json == everything[1]
        for unknown in ("9", "two", "-1", "1" * 30):
            assert (await site.get(f"/v1/decisions/{unknown}")).code == "not_found"


async def test_what_the_guard_does_not_hold_cannot_be_let_go(tmp_path: Path) -> None:
    async with center(tmp_path) as site:
        for path in ("/v1/services/cart/thaw", "/v1/instances/web-1/cart:0/clear"):
            answer = await site.post(path, {"reason": "now"})
            assert (answer.status, answer.code) == (409, "nothing_held")
        records = (await site.get("/v1/audit")).json["records"]
        assert [(each["action"], each["body"]["verdict"]) for each in records] == [
            ("clear", "nothing_held"), ("thaw", "nothing_held")
        ]  # fmt: skip
