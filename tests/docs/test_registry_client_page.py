"""The reference page of registry_client names everything that a stranger can use, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
import shlex
import subprocess
import sys
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest

import registry_client
from registry_client.backend import ENTRY_POINT_GROUP
from registry_client.client import check_options
from registry_client.command_options import make_parser
from registry_client.entry_points import entry_points
from registry_client.errors import BadOption, Unsupported

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/registry-client.md").read_text()
HOW_TO = (ROOT / "docs/how-to/registry-client.md").read_text()
SECTIONS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S))
NAMES = {heading: text for heading, text in SECTIONS.items() if not heading.startswith("The backend ")}
BACKENDS = sorted({point.name for point in entry_points(ENTRY_POINT_GROUP) if point.distribution == "unitd"})


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = {number for number, row in enumerate(cells) if set("".join(row)) == {"-"}}
    return [row for number, row in enumerate(cells) if number not in rules and number + 1 not in rules]


def call(name: str, function: Any) -> str:
    """A method as the page shows it: `get(service, instance)`."""
    parameters = [item.replace(annotation=Parameter.empty) for item in signature(function).parameters.values()]
    return f"{name}({', '.join(str(item) for item in parameters if item.name not in ('self', 'cls'))})"


def members(value: type) -> list[str]:
    """What the page must name of a class: fields, properties, and methods with their arguments."""
    found = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    for name, member in vars(value).items():
        plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if name.startswith("_") or name in found:
            continue
        if isinstance(plain, (property, enum.Enum)):
            found.append(name)
        elif inspect.isfunction(plain):
            found.append(call(name, plain))
    return found


def test_every_public_name_has_a_section_and_every_section_a_name() -> None:
    assert sorted(NAMES) == sorted(registry_client.__all__)


@pytest.mark.parametrize("name", sorted(registry_client.__all__))
def test_every_member_is_in_the_section_of_its_class(name: str) -> None:
    value, text = getattr(registry_client, name), NAMES[name]
    if not inspect.isclass(value):
        assert f"`{call(name, value)}`" in text
        return
    names = members(value)
    if issubclass(value, enum.Enum):
        names += [member.value for member in value]
    assert [member for member in names if f"`{member}`" not in text] == []


@pytest.mark.parametrize("name", ["Entry", "Inspection", "Tls"])
def test_the_defaults_of_fields_are_those_of_the_code(name: str) -> None:
    told = {row[0]: row[1] for row in rows(NAMES[name]) if len(row) == 3}
    assert told == {f"`{field.name}`": shown(field) for field in dataclasses.fields(getattr(registry_client, name))}


def shown(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return f"`{field.default_factory()!r}`" if callable(field.default_factory) else "(required)"


def test_every_attribute_of_an_error_is_told() -> None:
    for name in ("RegistryUnavailable", "RegistryRejected", "BadOption"):
        attributes = [
            item for item in signature(getattr(registry_client, name)).parameters if item not in ("message", "backend")
        ]
        assert [attribute for attribute in attributes if f"`{attribute}`" not in NAMES[name]] == []


def error_codes() -> set[str]:
    """The codes that the source hands to errors."""
    found: set[str] = set()
    for path in (ROOT / "registry_client").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name.endswith(("Rejected", "Refused", "Rejection")):
                    found |= set(filter(re.compile(r"[a-z]+(_[a-z]+)*").fullmatch, texts(node)))
    return found


def texts(call_of: ast.Call) -> list[str]:
    given = [*call_of.args, *(keyword.value for keyword in call_of.keywords if keyword.arg == "code")]
    return [node.value for node in given if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_every_code_of_an_error_is_told() -> None:
    codes = error_codes()
    assert {"stale_generation", "bad_ttl", "closed", "answer_too_large", "no_such_path"} <= codes
    assert [code for code in sorted(codes) if f"`{code}`" not in NAMES["RegistryRejected"]] == []


def test_the_page_knows_the_backends_that_are_installed() -> None:
    assert sorted(heading.removeprefix("The backend ") for heading in SECTIONS.keys() - NAMES.keys()) == BACKENDS


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_options_of_a_backend_are_those_of_its_signature(backend: str) -> None:
    parameters = signature(factory(backend)).parameters.values()
    defaults = [
        (f"`{item.name}`", "(required)" if item.default is Parameter.empty else f"`{item.default!r}`")
        for item in parameters
    ]
    assert sorted((row[0], row[1]) for row in rows(SECTIONS[f"The backend {backend}"])) == sorted(defaults)


def factory(backend: str) -> Any:
    try:
        return check_options(backend, {})
    except BadOption:  # it needs a url
        return check_options(
            backend, {"url": {"zookeeper": "zookeeper://h", "redis": "redis://h"}.get(backend, "http://h")}
        )
    except Unsupported as error:
        pytest.skip(str(error))


def test_the_options_and_actions_of_the_command_are_told() -> None:
    text, parser = PAGE[PAGE.index("## The command") :], make_parser()
    options = {
        option for action in parser._actions for option in action.option_strings if option not in ("-h", "--help")
    }
    told = set(re.findall(r"`(--?[a-z][a-z-]*)[ `]", text))
    assert options <= told
    (actions,) = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    assert set(actions) == set(re.findall(r"^\| `([a-z]+) ?[\[`S]", text, re.M))


def test_every_variable_of_the_help_is_on_the_page() -> None:
    told = set(re.findall(r"UNITD_REGISTRY_[A-Z_]+", PAGE))
    rest = re.sub(r"\s+", " ", make_parser().epilog or "").partition("so on for ")[2].partition(", where")[0]
    names = [name for name in re.split(r", | and ", rest) if name]
    assert told == {f"UNITD_REGISTRY_{name}" for name in (*names, "URL", "TOKEN", "PASSWORD")}


def test_the_python_of_the_how_to_is_typed_and_what_needs_no_registry_runs(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (extra check)")
    blocks = re.findall(r"```python\n(.*?)```", HOW_TO, re.S)
    paths = [tmp_path / f"block_{number}.py" for number in range(len(blocks))]
    for path, block in zip(paths, blocks, strict=True):
        path.write_text(block)
    checked = run("-m", "mypy", "--strict", *map(str, paths))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    ran = run("-c", blocks[-1])
    assert (ran.returncode, ran.stdout) == (0, "cannot reach the registry: told to fail\n"), ran.stderr


def test_the_links_of_the_how_to_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", HOW_TO + PAGE):
        assert (ROOT / "docs/how-to" / target).exists(), target


def test_the_commands_of_the_how_to_are_understood() -> None:
    lines = re.findall(r"python -m registry_client ([^|\n]+)", HOW_TO)
    assert len(lines) >= 3
    for line in lines:
        make_parser().parse_args(shlex.split(line))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=18)
