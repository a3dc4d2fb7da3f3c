"""The dump that a HAProxy which begins anew reads: written whole, or not at all."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gateway.feeders.haproxy.state_file import StateFile, replace


class Asked:
    """A session that has one answer."""

    async def ask(self, command: str) -> str:
        assert command == "show servers state"
        return "1\n# all"


async def test_a_file_for_all_and_one_for_each(tmp_path: Path) -> None:
    """{service} in the path makes the difference."""
    await StateFile(str(tmp_path / "all")).save(Asked(), "cart", "1\n# cart")
    await StateFile(str(tmp_path / "{service}.state")).save(Asked(), "cart", "1\n# cart")
    assert (tmp_path / "all").read_text() == "1\n# all\n"
    assert (tmp_path / "cart.state").read_text() == "1\n# cart\n"
    assert (tmp_path / "all").stat().st_mode & 0o777 == 0o644


async def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional."""
    monkeypatch.chdir(tmp_path)
    await StateFile(None).save(Asked(), "cart", "1\n# cart")
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_missing_is_complained_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Feeding goes on; what it means is said."""
    file = StateFile(str(tmp_path / "none" / "{service}"))
    with caplog.at_level(logging.WARNING):
        await file.save(Asked(), "cart", "1")
        await file.save(Asked(), "cart", "1")
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot write {tmp_path}/none/cart: No such file or directory; a HAProxy that begins anew begins without servers"
    ]


def test_what_was_there_stays_when_the_new_text_cannot_be_written(tmp_path: Path) -> None:
    """And nothing is left beside it."""
    path = tmp_path / "state"
    replace(str(path), "good")
    with pytest.raises(UnicodeEncodeError):
        replace(str(path), "\udc80")
    assert path.read_text() == "good\n"
    assert list(tmp_path.iterdir()) == [path]
