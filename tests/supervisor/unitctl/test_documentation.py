"""The reference page tells of every command and option, and of none that does not exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from supervisor.unitctl import codes
from supervisor.unitctl.fleet import FLEET_COMMANDS
from supervisor.unitctl.main import COMMANDS, cli
from supervisor.unitctl.session import Session, SharedOption

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
PAGE = REFERENCE / "unitctl.md"
FLEET_PAGE = REFERENCE / "unitctl-fleet.md"
OPERATE_PAGE = REFERENCE.parent / "how-to" / "operate-a-fleet.md"
FLEET = tuple(f"fleet {name}" for name in FLEET_COMMANDS)


def sections(page: Path = PAGE) -> dict[str, str]:
    """The text below each heading."""
    parts = re.split(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def section(name: str) -> str:
    """The text about a command."""
    return sections(FLEET_PAGE if name in FLEET else PAGE)[f"unitctl {name}"]


def loaded(name: str) -> click.Command:
    command: click.Command | None = cli
    for part in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), part)
    assert command is not None
    return command


def options(command: click.Command, *, shared: bool) -> set[str]:
    return {
        flag
        for param in command.params
        if isinstance(param, click.Option) and isinstance(param, SharedOption) is shared
        for flag in param.opts
    }


def named_in(text: str) -> set[str]:
    """The options that a text writes as code: `-f`, `-n LINES`."""
    return {
        flag for code in re.findall(r"`([^`\n]+)`", text) for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", code)
    }


@pytest.mark.parametrize("name", (*COMMANDS, *FLEET))
def test_a_command_has_its_section_with_an_example_and_every_option(name: str) -> None:
    text = section(name)
    assert re.search(rf"^\$ unitctl .*\b{name}\b", text, re.MULTILINE), "an example is missing"
    assert options(loaded(name), shared=False) <= named_in(text)


@pytest.mark.parametrize("name", (*COMMANDS, *FLEET))
def test_no_section_tells_of_an_option_that_does_not_exist(name: str) -> None:
    command = loaded(name)
    known = options(command, shared=False) | options(command, shared=True) | {"-h", "--help"}
    assert named_in(section(name)) <= known


def test_no_section_tells_of_a_command_that_does_not_exist() -> None:
    told = {heading.removeprefix("unitctl ") for heading in sections() if heading.startswith("unitctl ")}
    assert told == set(COMMANDS)
    told = {
        heading.removeprefix("unitctl ") for heading in sections(FLEET_PAGE) if heading.startswith("unitctl fleet ")
    }
    assert told == set(FLEET)


def test_the_shared_options_are_told_once() -> None:
    assert options(cli, shared=True) | {"-h", "--help", "--version"} <= named_in(sections()["Options of every command"])


def test_every_exit_code_is_told() -> None:
    known = {str(value) for name, value in vars(codes).items() if name.isupper()}
    told = set(re.findall(r"^\| (\d+) \|", sections()["Exit codes"], re.MULTILINE))
    assert told == known


def examples() -> list[str]:
    texts = [page.read_text() for page in (PAGE, FLEET_PAGE, OPERATE_PAGE)]
    return [line for text in texts for line in re.findall(r"^\$ unitctl (.*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("line", examples())
def test_an_example_is_a_command_line_that_parses(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0], comments=True)
    count = 2 if words[0] == "fleet" and words[1] in FLEET_COMMANDS else 1
    command, parent = loaded(" ".join(words[:count])), click.Context(cli, obj=Session(), **cli.context_settings)
    with command.make_context(words[count - 1], words[count:], parent=parent):
        pass
