"""The node's API, asked what its description allows and what it forbids: it answers, as described, and stays up."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from supervisor.openapi import document
from supervisor.wire import PROBLEMS
from tests.end_to_end.host import SERVE, Host

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, about libraries that it uses
    import schemathesis
    from schemathesis import Case, GenerationMode
    from schemathesis.checks import (
        content_type_conformance,
        negative_data_rejection,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(20 if "UNITD_FUZZ_EXAMPLES" not in os.environ else 3600),
]
EXAMPLES = int(os.environ.get("UNITD_FUZZ_EXAMPLES", "10"))  # for each route and mode; more than the default: by chance
ANSWER_SECONDS = 10.0
WAIT_SECONDS = "0.05"
CHECKS = [
    status_code_conformance, content_type_conformance, response_schema_conformance, response_headers_conformance,
]  # fmt: skip
DOCUMENT = document("test")
LEFT_OUT = "/v1/shutdown"  # it would end the daemon


def _asked() -> Iterator[Any]:
    """Each route with what is allowed, and with what is forbidden where something is (a path may hold anything)."""
    for path, methods in DOCUMENT["paths"].items():
        for method, route in methods.items():
            if path == LEFT_OUT:
                continue
            yield pytest.param(method.upper(), path, GenerationMode.POSITIVE, id=f"{method} {path}, allowed")
            if "requestBody" in route or any(item["in"] != "path" for item in route.get("parameters", ())):
                yield pytest.param(method.upper(), path, GenerationMode.NEGATIVE, id=f"{method} {path}, forbidden")


PLACES = {
    "unit": ["web:0", "web:1", "web", "job", "all", "j*b", "web:0,job", "no such", "web:*"],
    "service": ["web", "unitd", "no such"],
    "instance": ["here/web:0", "here", "no such"],
}


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Host]:
    """A host whose units bear to be started, stopped and signalled again and again."""
    host = Host()
    port, api = host.port(2), host.port()
    host.configure(
        f"""
[unit.web]
command = "{SERVE} {{port}}"
numprocs = 2
drain.timeout = 0.2
stopwaitsecs = 1
restart.settle_seconds = 0
warmup.period = 0.5
service.port = {port}
service.ttl_seconds = 0.5

[unit.job]
command = "/bin/sleep 1000"
startsecs = 0
""",
        http=f"127.0.0.1:{api}",
    )
    host.run()
    host.url = f"http://127.0.0.1:{api}"  # type: ignore[attr-defined]
    yield host
    host.close()


@pytest.fixture(scope="module")
def schema() -> Any:
    """What the daemon says of itself, ready to make requests of."""
    return schemathesis.openapi.from_dict(DOCUMENT)


def _tame(case: Case) -> None:
    """Streams end, and nobody waits long: that is for other tests."""
    query = dict(case.query or {})
    if case.path in ("/v1/events", "/v1/units/{unit}/logs") and query.get("follow", "1") not in ("0", "false"):
        query["follow"] = "0"
    if "wait" in query:
        query["wait"] = WAIT_SECONDS if _is_number(query["wait"]) else query["wait"]
    case.query = query


def _hit(case: Case, place: st.DataObject, host: Host, mode: GenerationMode) -> None:
    """Names that exist, more often than by chance, and what belongs together: else all would end at the first check."""
    known = {**PLACES, "id": [item["id"] for item in host.ask("GET", "/v1/operations").json["operations"]] or ["op-1"]}
    for name in set(case.path_parameters or {}) & set(known):
        chosen = place.draw(st.sampled_from([*known[name], None]))
        if chosen:
            case.path_parameters[name] = chosen
    if mode is not GenerationMode.POSITIVE or not isinstance(case.body, dict):
        return
    case.body = _whole(case.body)
    for lease in case.body.get("leases") or ():
        lease.update(service="made-up", instance="a/b")
    if isinstance(entry := case.body.get("entry"), dict):
        case.body["entry"] = {**entry, "service": "made-up", "instance": "a/b", "node": "a", "unit": "b", "address": "::1",
                              "metadata": {}, "version": None, "zone": None}  # fmt: skip
        case.path_parameters.update(service="made-up", instance="a/b")
    if case.body.get("center") is None or case.body.get("epoch") is None:  # only together; null is absent
        case.body = {key: value for key, value in case.body.items() if key not in ("center", "epoch")}
    if place.draw(st.booleans()):
        case.body.pop("expected_generation", None)
    parameters = case.body.get("parameters") or {}
    if isinstance(weight := parameters.get("weight"), int):
        case.body["parameters"] = {"weight": 1 + weight % 100}


def _whole(value: Any) -> Any:
    """1.0 as 1: to JSON Schema both are integers, to the daemon only the second."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_number(value: object) -> bool:
    try:
        return 0 <= float(value) <= 60  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


@pytest.mark.parametrize(("method", "path", "mode"), list(_asked()))
def test_the_answer_is_one_of_those_described(
    fuzzed: Host, schema: Any, method: str, path: str, mode: GenerationMode
) -> None:
    """Whatever is sent: one of the documented statuses, its media type, its form, its headers; no failure, no hang."""
    has_body = "requestBody" in DOCUMENT["paths"][path][method.lower()]
    strategy = schema[path][method].as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize="UNITD_FUZZ_EXAMPLES" not in os.environ, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    @given(case=strategy, place=st.data())
    def answers(case: Case, place: st.DataObject) -> None:
        _hit(case, place, fuzzed, mode)
        _tame(case)
        response = case.call(base_url=fuzzed.url, timeout=ANSWER_SECONDS)  # type: ignore[attr-defined]
        if response.status_code >= 500:
            assert response.status_code == 503 and path == "/readyz", response.text
        said = has_body and (response.request.body or b"").strip()  # nothing at all is a command with nothing said
        checks = [*CHECKS, negative_data_rejection] if said and response.status_code < 400 else CHECKS
        case.validate_response(response, checks=checks)
        if response.status_code >= 400 and path != "/readyz":
            problem = response.json()
            assert problem["status"] == response.status_code
            if not path.startswith("/v1/registry/"):
                assert PROBLEMS[problem["code"]] == (problem["status"], problem["title"])

    answers()


def test_it_is_all_there_afterwards(fuzzed: Host) -> None:
    """Nothing of that has hurt the daemon: it answers, and its units obey."""
    fuzzed.finish(fuzzed.order("start", "all"))
    assert fuzzed.ask("GET", "/readyz").status == 200
    assert "Traceback" not in fuzzed.said()


def test_a_shutdown_that_is_not_one_ends_nothing_and_one_that_is_ends_all(host: Host) -> None:
    """It was left out above, for it ends the daemon."""
    host.configure("[unit.job]\ncommand = '/bin/sleep 1000'\nstartsecs = 0")
    host.run()
    path = LEFT_OUT
    wrong = ([], 3, {"reason": 3}, {"when": "now"}, {"expected_generation": 1}, {"epoch": 1}, {"deadline": "soon"})
    for body in wrong:
        answer = host.ask("POST", path, body)
        assert (answer.status, answer.json["code"]) == (400, "bad_request"), body
    assert host.ask("POST", path, {"deadline": "2020-01-01T00:00:00Z"}).status == 410
    assert host.ask("GET", "/readyz").status == 200
    assert host.ask("POST", path, {"reason": "enough"}).status == 202
    assert host.wait() == 0
