"""Whatever is sent to the API: no failure, no hang, and answers as they are described."""

from __future__ import annotations

import asyncio
import copy
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from control_center.api.openapi import document
from control_center.api.serving import MAX_LINE_BYTES
from control_center.model import Decision, NodeStatus, Verdict

from .site import STARTED, Site, center, entry

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
EXAMPLES = int(os.environ.get("UNITD_FUZZ_EXAMPLES", "12"))  # for each route and mode; more than the default: by chance
ANSWER_SECONDS = 10.0
CHECKS = [
    status_code_conformance, content_type_conformance, response_schema_conformance, response_headers_conformance,
]  # fmt: skip
DOCUMENT = copy.deepcopy(document())
del DOCUMENT["components"]["securitySchemes"]  # who may is another matter
for _path in DOCUMENT["paths"].values():
    for _route in _path.values():
        _route["security"] = []
PLACES = {
    "service": ["cart", "unitd", "no such"],
    "node": ["web-1", "nat-1", "no such"],
    "unit": ["cart:0", "no such"],
    "id": ["1", "fo-1"],
    "instance": ["web-1/cart:0", "web-1", "no/such"],
    "file": ["app.js", "../app.py"],
}


class _Thread:
    """A center in a loop of its own thread."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.url = folder, ""
        self._is_up, self._loop = threading.Event(), asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Thread:
        self._thread.start()
        assert self._is_up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(15)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._is_up.set()
            self._loop.close()

    async def _serve(self) -> None:
        async with center(self._folder) as site:
            await _furnish(site)
            self.url = site.url
            self._is_up.set()
            await self._end.wait()


async def _furnish(site: Site) -> None:
    """Something of everything that can be asked for."""
    await site.register(
        entry("cart", "web-1"), entry("cart", "web-2"), entry("cart", "web-3"), entry("cart", "web-4"),
        entry("unitd", "web-1", "unitd"),
    )  # fmt: skip
    site.heartbeats.nodes = [
        NodeStatus("web-1", "10.0.0.1", 9301, "http", "push", "up", 0.1, 1.0, 5.0),
        NodeStatus("nat-1", "10.0.0.2", 1, "http", "pull"),
    ]
    site.nodes.answers["web-1", "/v1/units"] = {"units": []}
    await site.store.add_decision(
        Decision(STARTED, "cart", "web-1/cart:0", 1, Verdict.REFUSE, "quorum", "one voice only"), epoch=None
    )
    for number in range(3):
        await site.store.add_event("node", {"number": number})
    await site.post("/v1/nodes/nat-1/heartbeat", {"node": "nat-1", "statuses": [{"unit": "cart:0"}]})


def _asked() -> Iterator[Any]:
    """Each route with what is allowed, and with what is forbidden where something is (a path may hold anything)."""
    for path, methods in DOCUMENT["paths"].items():
        for method, route in methods.items():
            yield pytest.param(method, path, GenerationMode.POSITIVE, id=f"{method} {path}, allowed")
            if "requestBody" in route or any(item["in"] != "path" for item in route["parameters"]):
                yield pytest.param(method, path, GenerationMode.NEGATIVE, id=f"{method} {path}, forbidden")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a center answers."""
    with _Thread(tmp_path_factory.mktemp("center")) as running:
        yield running.url


@pytest.fixture(scope="module")
def schema() -> Any:
    """What the center says of itself, ready to make requests of."""
    return schemathesis.openapi.from_dict(DOCUMENT)


def _tame(case: Case) -> None:
    """Streams end, and nobody waits long: that is for other tests."""
    query = dict(case.query or {})
    if case.path == "/v1/events" and query.get("follow", "1") not in ("0", "false"):
        query["follow"] = "0"
    if isinstance(query.get("wait"), int | float) and query["wait"] > 0:
        query["wait"] = 0.01
    case.query = query


@pytest.mark.parametrize(("method", "path", "mode"), list(_asked()))
def test_the_answer_is_one_of_those_described(url: str, schema: Any, method: str, path: str, mode: Any) -> None:
    """Whatever is sent: one of the documented statuses, its media type, its form; no failure, no hang."""
    strategy = schema[path][method].as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize="UNITD_FUZZ_EXAMPLES" not in os.environ, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    @given(case=strategy, place=st.data())
    def answers(case: Case, place: st.DataObject) -> None:
        for name in sorted(set(case.path_parameters or {}) & set(PLACES) if mode is GenerationMode.POSITIVE else ()):
            if chosen := place.draw(st.sampled_from([*PLACES[name], None])):
                case.path_parameters[name] = chosen
        _tame(case)
        response = case.call(base_url=url, timeout=ANSWER_SECONDS)
        if len(str(response.request.url)) > MAX_LINE_BYTES:
            assert response.status_code == 400  # it is no request yet that could be described
            return
        assert response.status_code < 500 or response.json()["code"] == "node_unreachable", response.text
        checks = [*CHECKS, negative_data_rejection] if mode is GenerationMode.NEGATIVE else CHECKS
        case.validate_response(response, checks=checks)
        if response.status_code >= 400:
            assert response.json()["status"] == response.status_code
            assert "Traceback" not in response.text

    answers()
