"""The bench of the control center with a handful of nodes: it measures what it says, and notices what went wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.end_to_end.host import ROOT

NODES, SERVICES = 5, 3
SECONDS = 16.0


def bench(*words: str) -> list[dict[str, Any]]:
    """Its tables."""
    short = ("--runs", "1", "--seconds", "0.5", "--restart", "0.1", "--ttl", "1", "--services", str(SERVICES))
    command = [sys.executable, str(ROOT / "bench" / "fleet.py"), *words, *short, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said, complaints = process.communicate(timeout=SECONDS)
        except BaseException:
            process.send_signal(signal.SIGINT)  # so that it ends the center and the nodes
            raise
    assert process.returncode == 0, complaints
    tables, rest = [], said.strip()
    while rest:
        table, end = json.JSONDecoder().raw_decode(rest)
        tables.append(table)
        rest = rest[end:].strip()
    return tables


def test_it_restarts_one_service_and_all_of_them_once_each_and_tells_what_that_cost() -> None:
    operations, watched = (table["rows"] for table in bench("--nodes", str(NODES)))

    assert [row["commands"] for row in operations] == [NODES, NODES * SERVICES, NODES * SERVICES]
    for row in operations:
        assert 0 < row["answered"]["median"] < row["done"]["median"]
        assert 0 < row["acknowledged"]["median"] < row["done"]["median"]
        assert row["center"]["median"] > 0
        assert row["fakes"]["median"] > 0
    [idle] = watched
    assert (idle["nodes"], idle["entries"]) == (NODES, NODES * (SERVICES + 1))
    assert 0 < idle["PSS before"] <= idle["RSS at most"]
    assert idle["store MiB"] > 0


def test_growth_is_the_factor_of_a_figure_by_the_factor_of_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))  # where a bench finds its own modules
    from bench.fleet import WORK, growth

    def operation(what: str, nodes: int, figure: float) -> dict[str, Any]:
        figures = {name: {"median": figure} for name in ("acknowledged", "done", "center", "fakes")}
        return {"what": what, "nodes": nodes, **figures}

    operations = [operation(what, nodes, nodes * nodes) for nodes in (10, 30, 100) for what in WORK]
    watched = [{"nodes": nodes, "center CPU %": 2.0 * nodes, "fake nodes CPU %": 1.0} for nodes in (10, 100)]

    rows = {row["what"]: row for row in growth(watched, operations)}

    assert all(rows[what]["done"] == pytest.approx(10) for what in WORK)
    assert rows["watching"]["center CPU"] == pytest.approx(1)
    assert rows["watching"]["fake nodes CPU"] == pytest.approx(0.1)
