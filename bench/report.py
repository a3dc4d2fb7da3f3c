"""Options and tables of the benches."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Sequence


def options(description: str, *, units: int, runs: int) -> argparse.Namespace:
    """The options that all benches have: `units`, `runs`, `json`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--units", type=int, default=units, help=f"how many units (default: {units})")
    parser.add_argument("--runs", type=int, default=runs, help=f"how often each thing is measured (default: {runs})")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()
    if chosen.units < 1 or chosen.runs < 1:
        parser.error("--units and --runs must be at least 1")
    return chosen


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(title: str, rows: Sequence[dict[str, object]], *, as_json: bool) -> None:
    """Print rows with equal keys; numbers get four significant digits in a table and all in JSON."""
    host = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    if as_json:
        print(json.dumps({"title": title, "host": host, "rows": rows}, indent=1))
        return
    print(f"{title} ({host['cpus']} CPUs, Linux {host['kernel']}, Python {host['python']})\n")
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
