"""The reference page tells of every command and option, and of none that does not exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from supervisor.unitctl import codes
from supervisor.unitctl.main import COMMANDS, cli
from supervisor.unitctl.session import Session, SharedOption

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "unitctl.md"


def sections() -> dict[str, str]:
    """The text below each heading."""
    parts = re.split(r"^#+ (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def loaded(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
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


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_its_section_with_an_example_and_every_option(name: str) -> None:
    text = sections()[f"unitctl {name}"]
    assert re.search(rf"^\$ unitctl .*\b{name}\b", text, re.MULTILINE), "an example is missing"
    assert options(loaded(name), shared=False) <= named_in(text)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_section_tells_of_an_option_that_does_not_exist(name: str) -> None:
    command = loaded(name)
    known = options(command, shared=False) | options(command, shared=True) | {"-h", "--help"}
    assert named_in(sections()[f"unitctl {name}"]) <= known


def test_no_section_tells_of_a_command_that_does_not_exist() -> None:
    told = {heading.removeprefix("unitctl ") for heading in sections() if heading.startswith("unitctl ")}
    assert told == set(COMMANDS)


def test_the_shared_options_are_told_once() -> None:
    assert options(cli, shared=True) | {"-h", "--help", "--version"} <= named_in(sections()["Options of every command"])


def test_every_exit_code_is_told() -> None:
    known = {str(value) for name, value in vars(codes).items() if name.isupper()}
    told = set(re.findall(r"^\| (\d+) \|", sections()["Exit codes"], re.MULTILINE))
    assert told == known


def examples() -> list[str]:
    return re.findall(r"^\$ unitctl (.*)$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", examples())
def test_an_example_is_a_command_line_that_parses(line: str) -> None:
    name, *rest = shlex.split(line.partition(" > ")[0])
    with loaded(name).make_context(name, rest, parent=click.Context(cli, obj=Session(), **cli.context_settings)):
        pass
