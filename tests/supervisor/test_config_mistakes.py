"""200 mistakes in a valid configuration: each is refused with its file and key, none ends in another exception."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from supervisor.config import ConfigErrors, check, load
from supervisor.errors import ConfigError
from tests.supervisor.config_draft import CART, MAIN, Draft, valid_files, write
from tests.supervisor.config_mistakes import KINDS, Mistake, mistakes
from tests.supervisor.config_wrong_values import WRONG, WRONG_MAIN

ALL = mistakes()


def test_the_configuration_that_mistakes_are_made_in_is_valid(tmp_path: Path) -> None:
    config = load(str(write(valid_files(), tmp_path)))

    assert list(config.units) == ["clock", "cart:0", "cart:1", "database", "monitor"]


def test_there_are_200_different_mistakes_of_every_kind() -> None:
    assert len(ALL) == 200
    assert {mistake.kind for mistake in ALL} == {kind.__name__ for kind in KINDS}


@pytest.mark.parametrize("mistake", ALL, ids=str)
def test_a_mistake_is_refused_with_its_file_and_key(mistake: Mistake, tmp_path: Path) -> None:
    main = mistake.write(tmp_path)

    with pytest.raises(ConfigErrors) as caught:
        load(str(main))

    places = [(error.path, error.key) for error in caught.value.errors]
    path = str(tmp_path / mistake.file)
    if mistake.key is None:
        assert places[0][0] == path
    else:
        assert (path, mistake.key) in places
    if mistake.line is not None:
        assert mistake.line in [error.line for error in caught.value.errors if error.path == path]
    assert all(error.reason and str(error).isprintable() for error in caught.value.errors)


def _every_wrong_value() -> list[tuple[str, str, tuple[Any, ...]]]:
    """(file, key, values) of all that single mistakes are drawn from."""
    of_main = [(MAIN, key, values) for values, keys in WRONG_MAIN for key in keys]
    return of_main + [(CART, key, values) for values, keys in WRONG for key in keys]


@pytest.mark.parametrize(("file", "key", "values"), _every_wrong_value())
def test_every_wrong_value_of_a_key_is_refused_at_that_key(file: str, key: str, values: tuple[Any, ...]) -> None:
    name = key if file == MAIN else f"unit.cart.{key}"
    for value in values:
        draft = Draft(random.Random(0))
        draft.put(file, name, value)
        found = _check_in_memory(draft.rendered())
        assert [(error.path, error.key) for error in found] == [(f"/etc/unitd/{file}", name)], value


@pytest.mark.parametrize("mistake", ALL[::7], ids=str)
def test_check_tells_of_the_same_mistakes_as_load(mistake: Mistake, tmp_path: Path) -> None:
    main = str(mistake.write(tmp_path))

    with pytest.raises(ConfigErrors) as caught:
        load(main)

    assert [str(error) for error in check(main)] == [str(error) for error in caught.value.errors]


def test_bytes_changed_by_chance_are_accepted_or_refused_but_never_break_anything() -> None:
    rng = random.Random(7)
    valid = valid_files()
    refused = 0
    for _ in range(1500):
        files = dict(valid)
        name = rng.choice([*files])
        data = bytearray(files[name])
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(data))
            how = rng.randrange(4)
            if how == 0:
                data[at] = rng.randrange(256)
            elif how == 1:
                del data[at : at + rng.randrange(1, 20)]
            elif how == 2:
                data[at:at] = rng.choice(
                    [b'"', b"'", b"[", b"]", b"{", b"}", b"=", b".", b"\n", b"\r", b"\\", b'"""', b"#"]
                )
            else:
                data[at:at] = data[rng.randrange(len(data)) :][:30]
            data = data or bytearray(b"#")
        files[name] = bytes(data)
        refused += bool(_check_in_memory(files))
    assert 500 < refused < 1500


def _check_in_memory(files: dict[str, bytes]) -> list[ConfigError]:
    def read(path: str) -> bytes:
        name = path.removeprefix("/etc/unitd/")
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return files[name]

    def find(folder: str, pattern: str) -> list[str]:
        return [f"{folder}/{name}" for name in sorted(files) if name.startswith("units.d/")]

    return check(f"/etc/unitd/{MAIN}", read=read, find=find)
