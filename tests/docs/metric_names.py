"""Which metrics a page, a rule or a dashboard speaks of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/metrics.md"
RULES = ROOT / "etc/prometheus/unitd-alerts.yml"
DASHBOARD = ROOT / "etc/grafana/unitd-dashboard.json"

_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", re.MULTILINE)
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NOISE = re.compile(
    r"""\{[^}]*\}                                              # matchers of labels
      | "[^"]*"
      | \[[^\]]*\]                                             # ranges
      | \b\w+(?=\s*\()                                         # functions
      | \b(?:and|or|unless|offset|bool)\b
      | \b\d+(?:\.\d+)?(?:ms|[smhdwy])?\b""",
    re.VERBOSE,
)


def documented(heading: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """metric -> (type, labels), of one part of the page."""
    part = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {name: (kind, tuple(re.findall(r"`(\w+)`", names))) for name, kind, names in _ROW.findall(part)}


def series_of(name: str, kind: str) -> set[str]:
    """What a metric of that type is asked for by."""
    return {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}


def names_in(expression: str) -> set[str]:
    """The metrics of an expression of PromQL: what is neither function, keyword, label, number nor text."""
    return set(re.findall(r"[A-Za-z_:]\w*", _NOISE.sub(" ", _GROUPING.sub("", expression))))


def rules() -> dict[str, str]:
    """alert -> expression. (Just so much YAML as the file has: `expr: one line`, or `expr: |` and a block.)"""
    found: dict[str, str] = {}
    blocks = re.split(r"^\s*- alert: ", RULES.read_text(), flags=re.MULTILINE)[1:]
    for block in blocks:
        name, rest = block.split("\n", 1)
        match = re.search(r"^\s*expr: (?:\|\n((?:\s{10,}.*\n)+)|(.*)\n)", rest, re.MULTILINE)
        assert match is not None, name
        found[name] = match[1] or match[2]
    return found


def panels() -> Iterator[tuple[str, str]]:
    """(title, expression) of the dashboard, and its variables."""
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"].replace("label_values(", "").partition(",")[0]
