"""Alert rules and the dashboard speak of metrics that exist, and the page describes those of the control center."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from control_center.metrics import Metrics
from tests.docs.metric_names import DASHBOARD, RULES, documented, names_in, panels, rules, series_of
from tests.end_to_end.conftest import RequiresProgram, requires_program  # noqa: F401 - a fixture

KNOWN = {"up"}.union(
    *(series_of(name, kind) for part in ("unitd", "unit-center") for name, (kind, _) in documented(part).items())
)
FIRES = """
rule_files: [RULES]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - { series: 'unitd_lease_state{instance="a",unit="web",registry="main",state="suspended"}', values: '1x20' }
      - { series: 'unitd_unit_state{instance="a",unit="job",state="FATAL"}', values: '1x20' }
      - { series: 'unitd_removal_wait_ratio_count{instance="a"}', values: '0x5 1x20' }
      - { series: 'unitd_removal_wait_ratio_bucket{instance="a",le="0.9"}', values: '0x25' }
      - { series: 'unitd_drain_seconds_count{instance="a",service="web",outcome="timeout"}', values: '_x5 1x20' }
      - { series: 'unit_center_leader{instance="c1"}', values: '0x20' }
      - { series: 'unit_center_leader{instance="c2"}', values: '0x20' }
      - { series: 'unit_center_nodes{instance="c1",state="suspect"}', values: '1x20' }
      - { series: 'unit_center_nodes{instance="c1",state="up"}', values: '9x20' }
    promql_expr_test:
      - { expr: 'count by (alertname) (ALERTS{alertstate="firing"})', eval_time: 8m, exp_samples: [
            { labels: '{alertname="LeaseSuspended"}', value: 1 }, { labels: '{alertname="UnitFatal"}', value: 1 },
            { labels: '{alertname="RemovalNearBound"}', value: 1 }, { labels: '{alertname="DrainTimeout"}', value: 1 },
            { labels: '{alertname="NoLeadingCenter"}', value: 1 }, { labels: '{alertname="NodeSuspect"}', value: 1 } ] }
"""


@pytest.mark.parametrize("alert", rules())
def test_an_alert_looks_at_metrics_that_exist(alert: str) -> None:
    names = names_in(rules()[alert])
    assert names, "it looks at something"
    assert names <= KNOWN


def test_every_panel_shows_metrics_that_exist() -> None:
    for title, expression in panels():
        names = names_in(expression)
        assert names, title
        assert names <= KNOWN, title


def test_a_name_that_is_misspelt_would_be_found() -> None:
    """The check above can fail."""
    assert names_in('sum by (a) (rate(unitd_foo{b="unitd_bar"}[5m])) > 0.5 and on (c) up offset 5m') == {
        "unitd_foo",
        "up",
    }
    assert not {"unitd_unit_stat"} <= KNOWN


def test_the_page_describes_what_the_control_center_counts() -> None:
    """Names, types and labels."""
    found = {}
    for metric in Metrics().registry._collector_to_names:
        family = next(iter(metric.collect()))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = family.type, tuple(metric._labelnames)
    assert documented("unit-center") == found


def test_the_dashboard_can_be_imported() -> None:
    """Each panel has its own id and place, and says where its data comes from."""
    board = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.real
def test_prometheus_takes_the_rules_and_they_fire(requires_program: RequiresProgram, tmp_path: Path) -> None:  # noqa: F811
    """Checked and tried with Prometheus' own tool."""
    promtool = requires_program("promtool", "prometheus")
    checked = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    shutil.copy(RULES, tmp_path / "rules.yml")
    (tmp_path / "test.yml").write_text(FIRES.replace("RULES", "rules.yml"))
    tried = subprocess.run(
        [promtool, "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert tried.returncode == 0, tried.stdout + tried.stderr
