"""Every key of the schema: any value is accepted or refused at its key, and the reference page knows it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.config import schema
from supervisor.config.schema import Key
from supervisor.config.text import PLACEHOLDERS
from supervisor.core.plan import FIELDS
from supervisor.plugin_api import PROBES
from tests.supervisor.config_files import MAIN, errors, loaded

DOC = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"

SCALARS = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["10s", "1GB", "TERM", "AUTO", "{port}", "{x}", "/a", "infinity", "true", "127.0.0.1:80"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def _places() -> list[tuple[str, str]]:
    """(table, key) of every key in the schema."""
    tables: dict[str, Mapping[str, Key]] = {"": schema.MAIN, **schema.MAIN_TABLES, "unit.NAME": schema.UNIT}
    tables |= {f"unit.NAME.{part}": keys for part, keys in schema.UNIT_TABLES.items()}
    return [(table, key) for table, keys in tables.items() for key in keys]


PLACES = _places()


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return repr(value)


def _with(table: str, key: str, value: str) -> str:
    """A small valid configuration in which one key has that value."""
    lines = {"unit.a.command": '"x"', "unit.a.service.port": "8080"}
    place = f"{table}.{key}".replace("NAME", "a").lstrip(".")
    lines[place] = value
    if key == "backend":
        lines.setdefault("registry.url", '"http://10.0.0.5:9301"')
    if table.startswith("http"):
        lines.setdefault("http.listen", '"127.0.0.1:9301"')
    if table.startswith("center"):
        lines.setdefault("center.url", '"https://center:9300"')
    if table == "http.access.NAME":
        lines.setdefault("http.access.a.role", '"read"')
        lines.setdefault("http.access.a.token_sha256", f'"{"0" * 64}"')
        lines.setdefault("http.tls.client_ca", '"ca.pem"')
    if any(line.startswith("http.tls.") for line in lines):
        lines.setdefault("http.tls.cert", '"x.pem"')
    if (part := table.removeprefix("unit.NAME.")) in schema.PROBES:
        lines.setdefault(f"unit.a.{part}.tcp", "true")
    if part == "drain":
        lines.setdefault("unit.a.drain.notify", '{ signal = "USR1" }')
    if part == "warmup":
        lines.setdefault(f"unit.a.warmup.{'period' if key == 'step' else 'step'}", "10")
    return "".join(f"{place} = {value}\n" for place, value in lines.items())


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), VALUES)
def test_any_value_of_any_key_is_accepted_or_refused_at_that_key(place: tuple[str, str], value: Any) -> None:
    table, key = place
    found = errors(_with(table, key, _toml(value)))
    name = f"{table}.{key}".replace("NAME", "a").lstrip(".")
    assert all(each.path == MAIN and each.key.startswith(name) and each.line for each in found)


# The reference page.


def _documented() -> dict[tuple[str, str], tuple[str, str, str]]:
    """(table, key) -> type, default and change, as the page has them."""
    found: dict[tuple[str, str], tuple[str, str, str]] = {}
    tables: list[str] = []  # several in one heading have the same keys
    for line in DOC.read_text().splitlines():
        if heading := re.fullmatch(r"#+ (?:\[(.+)\]|(.*))", line):
            tables = heading[1].split("], [") if heading[1] else [""] * (heading[2] == "Main file")
        elif tables and (row := re.fullmatch(r"\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \| .+ \|", line)):
            for table in tables:
                assert (table, row[1]) not in found
                found[table, row[1]] = row[2], row[3].strip("`"), row[4]
    return found


DOCUMENTED = _documented()


def _key(place: tuple[str, str]) -> Key:
    table, key = place
    if table.startswith("unit.NAME"):
        part = table.removeprefix("unit.NAME").lstrip(".")
        return (schema.UNIT_TABLES[part] if part else schema.UNIT)[key]
    return (schema.MAIN_TABLES[table] if table else schema.MAIN)[key]


def test_the_reference_names_every_key_and_no_other() -> None:
    assert sorted(DOCUMENTED) == sorted(PLACES)


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_the_reference_has_the_type_and_default_of_a_key(place: tuple[str, str]) -> None:
    key = _key(place)
    assert DOCUMENTED[place][:2] == (key.type, key.default)


@pytest.mark.parametrize("place", [place for place in PLACES if place[0].startswith("unit.")], ids=".".join)
def test_the_reference_has_the_effect_of_a_change(place: tuple[str, str]) -> None:
    special = {
        "numprocs": "new, removed",
        "numprocs_start": "restart",
        "envfile": FIELDS["environment"][1].value,
    }
    field = _key(place).field
    expected = special[place[1]] if field not in FIELDS else FIELDS[field][1].value
    assert DOCUMENTED[place][2] == expected


@pytest.mark.parametrize("place", [place for place in PLACES if _key(place).default[0] not in "(r"], ids=".".join)
def test_the_default_written_out_changes_nothing(place: tuple[str, str]) -> None:
    table, key = place
    written = _with(table, key, _key(place).default)
    left_out = written.replace(f"{'.'.join(filter(None, place))} = ".replace("NAME", "a"), "# ")
    assert left_out != written
    assert loaded(written) == loaded(left_out)


def test_the_examples_of_the_reference_are_valid() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOC.read_text(), re.DOTALL)
    registries = [block for block in blocks if "[registry.also." in block]
    assert registries and all(len(loaded(block).daemon.registries) == 2 for block in registries)
    main, cart = (block for block in blocks if block not in registries)
    database = '[unit.database]\ncommand = "db"\n'
    config = loaded(main, **{"/etc/unitd/units.d/a.toml": cart, "/etc/unitd/units.d/b.toml": database})
    assert list(config.units) == ["addToCart:0", "addToCart:1", "database"]


def test_a_changed_kind_of_a_probe_and_its_options_have_the_effect_that_the_reference_gives_probes() -> None:
    assert {FIELDS[f"{probe}.{name}"][1].value for probe in schema.PROBES for name in ("kind", "options")} == {"live"}


# Kinds of probes: an option's row names the kind, a kind's own row has empty cells.


def _kinds() -> dict[str, dict[str, str]]:
    """kind -> option -> default, as the page has them."""
    found: dict[str, dict[str, str]] = {}
    section = DOC.read_text().partition("\n## Kinds of probes")[2].partition("\n## ")[0]
    for row in re.finditer(r"^\| `(\w+)` \| (?:`(\w+)` \| (.+?) \| (.+?)|\| \| )\| .+ \|$", section, re.MULTILINE):
        options = found.setdefault(row[1], {})
        if row[2]:
            options[row[2]] = row[4].strip().strip("`")
    return found


KINDS = _kinds()
SAMPLES = {
    "port": "{port}", "host": "127.0.0.1", "body": "ok", "body_regex": "o+k", "username": "probe", "password": "secret",
}  # fmt: skip


def test_the_reference_names_every_kind_that_comes_with_unitd() -> None:
    project = tomllib.loads((DOC.parents[2] / "pyproject.toml").read_text())["project"]
    assert sorted(KINDS) == sorted(project["entry-points"][PROBES])


@pytest.mark.parametrize(
    ("kind", "option", "default"),
    [(kind, option, default) for kind, options in KINDS.items() for option, default in options.items()],
)
def test_a_kind_knows_every_option_that_the_reference_gives_it(kind: str, option: str, default: str) -> None:
    value = json.dumps(SAMPLES[option]) if default[0] == "(" else default
    more = {"tls": ', scheme = "https"', "username": ', password = "p"'}.get(option, "")
    assert not errors(
        f'[unit.a]\ncommand = "x"\nservice = {{ port = 80 }}\nreadiness.{kind} = {{ {option} = {value}{more} }}'
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "exec"])
def test_the_list_of_a_kinds_known_options_is_that_of_the_reference(kind: str) -> None:
    (found,) = errors(f'[unit.a]\ncommand = "x"\nservice = {{ port = 80 }}\nreadiness.{kind} = {{ zzzzzzzz = 1 }}')
    assert found.key == f"unit.a.readiness.{kind}.zzzzzzzz"
    assert sorted(found.reason.partition("known here: ")[2].split(", ")) == sorted(KINDS[kind])


def test_every_placeholder_of_the_reference_is_known() -> None:
    section = DOC.read_text().partition("### Placeholders")[2].partition("###")[0]
    assert tuple(re.findall(r"^\| `\{(\w+)\}`", section, re.MULTILINE)) == PLACEHOLDERS
