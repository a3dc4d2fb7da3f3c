"""Pages that are generated are as fresh as what they are generated from."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_state_diagram_is_what_the_table_says():
    spec = importlib.util.spec_from_file_location("unit_states", DOCS / "unit_states.py")
    unit_states = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unit_states)
    page = (DOCS / "reference" / "unit-states.md").read_text()
    assert page == unit_states.render(), "stale: run `make diagram`"
