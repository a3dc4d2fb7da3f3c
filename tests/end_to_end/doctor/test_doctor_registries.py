"""`unitctl doctor` and each kind of registry, on the real server: what it says of it in order, and when it is away."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from tests.end_to_end.machine import until
from tests.end_to_end.registries.site import TTL, Site


def examine(site: Site) -> tuple[int, list[dict[str, Any]]]:
    done = site.host.unitctl("doctor", "-o", "json")
    return done.returncode, list(json.loads(done.stdout)["findings"])


def of(findings: list[dict[str, Any]], check: str) -> list[dict[str, Any]]:
    return [item for item in findings if item["check"] == check]


def test_it_tells_version_latency_ttl_and_stale_entries_and_that_the_registry_is_away(site: Site) -> None:
    site.run()
    _, findings = examine(site)
    registry = of(findings, "registry")[0]
    assert (
        registry["outcome"] in ("ok", "warning") and site.kind in registry["message"] and " ms" in registry["message"]
    )
    assert [item["outcome"] for item in of(findings, "missing")] == ["ok"]
    assert of(findings, "ttl") and "problem" not in [item["outcome"] for item in of(findings, "ttl")]
    assert not [item for item in of(findings, "entries") if site.namespace in item["message"]], "none of it is stale"

    entry = next(iter(site.entries().values()))
    stale = replace(entry, instance="here/gone", unit="gone", generation=4)
    with site.reader().register(stale, TTL + 10):  # renewed by somebody who is no unit of this daemon
        _, findings = examine(site)
    told = [item["outcome"] for item in of(findings, "entries") if f"gone of {site.namespace}" in item["message"]]
    assert told == ["warning"]

    site.proxy.stall()
    began = time.monotonic()
    code, findings = examine(site)
    assert code == 1 and [item["outcome"] for item in of(findings, "registry")] == ["problem"]
    assert time.monotonic() - began < 9, "a registry that is away must not keep the others waiting"
    site.proxy.mend()
    until("it is well again", lambda: of(examine(site)[1], "registry")[0]["outcome"] != "problem")
