"""kill -9 at random moments, with requests, orders and crashes under way: what `bench/adopt.py` counts, a few times."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.end_to_end.host import ROOT


@pytest.mark.timeout(120)
def test_deaths_at_random_moments_cost_no_request_no_process_and_no_line() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "bench/adopt.py", "--kills", "8", "--rate", "50", "--units", "--json"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    [row] = json.loads(done.stdout)["rows"]
    assert row.pop("kills") == 8
    assert all(row.pop(key) > 0 for key in ("requests", "orders", "lines"))
    assert set(row.values()) == {0}, row
