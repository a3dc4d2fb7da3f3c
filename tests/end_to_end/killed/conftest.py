"""A scene for a test, and the end of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.killed.scene import Scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    """One service of one process, up and registered."""
    made = Scene()
    try:
        made.run()
        made.check_registered("web")
        yield made
    finally:
        made.close()
