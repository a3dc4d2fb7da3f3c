"""The manual pages tell of every command, option and key, and readers of manual pages have nothing to say about them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from control_center import boot as center_boot
from control_center import config as center_config
from supervisor import boot
from supervisor.config import schema
from supervisor.config.schema import Key
from supervisor.unitctl.main import cli

SOURCE = Path(__file__).parents[2] / "docs" / "man_pages.py"


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("man_pages", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    __import__("sys").modules[spec.name] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return dict(generator().pages())


def plain(roff: str) -> str:
    """The text without fonts and escapes."""
    roff = re.sub(r"\\f[BIR]", "", roff)
    for escape, char in (
        ("\\-", "-"),
        ("\\(aq", "'"),
        ("\\(ga", "`"),
        ("\\(ti", "~"),
        ("\\(ha", "^"),
        ("\\&", ""),
        ("\\e", "\\"),
    ):
        roff = roff.replace(escape, char)
    return roff


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """(path, command) of all below a group."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        yield inner.command_path, command
        if isinstance(command, click.Group):
            yield from commands(command, inner)


def test_every_program_and_file_has_a_page(pages: dict[str, str]) -> None:
    names = {"man1/unitctl.1", "man1/unitctl-fleet.1", "man8/unitd.8", "man8/unit-center.8", "man5/unitd.toml.5",
             "man5/unit-center.toml.5"}  # fmt: skip
    if importlib.util.find_spec("gateway.boot") is not None:
        names |= {"man8/unit-gateway.8", "man5/unit-gateway.toml.5"}
    assert set(pages) == names


def test_every_command_and_option_of_unitctl_is_told(pages: dict[str, str]) -> None:
    text = plain(pages["man1/unitctl.1"] + pages["man1/unitctl-fleet.1"])
    for path, command in commands(cli, click.Context(cli, info_name="unitctl")):
        assert re.search(rf"^\.S[SH] {path}\b.*", text, re.MULTILINE), f"{path} has no section"
        for option in (param for param in command.params if isinstance(param, click.Option)):
            assert any(flag in text for flag in option.opts), f"{path} {option.opts}"


def test_the_section_of_a_command_begins_with_its_usage(pages: dict[str, str]) -> None:
    assert ".SS unitctl restart [OPTIONS] NAME..." in plain(pages["man1/unitctl.1"])


@pytest.mark.parametrize(("page", "program"), [("man8/unitd.8", boot), ("man8/unit-center.8", center_boot)])
def test_every_option_of_a_daemon_is_told(pages: dict[str, str], page: str, program: Any) -> None:
    text = plain(pages[page])
    options = re.findall(r"--[a-z-]+", program.USAGE)
    assert options and all(option in text for option in options)
    assert program.DEFAULT_CONFIG in text and ".SH EXIT STATUS\n.TP\n0\nstopped" in text


def keys(*tables: Mapping[str, Any]) -> set[str]:
    """All keys of tables of keys, and of tables of tables."""
    found: set[str] = set()
    for table in tables:
        for name, value in table.items():
            found |= {name} if isinstance(value, Key) else keys(value)
    return found


def test_every_key_of_the_configurations_is_told(pages: dict[str, str]) -> None:
    units = keys(schema.MAIN, schema.MAIN_TABLES, schema.UNIT, schema.UNIT_TABLES)
    center = keys({name: value for name, value in vars(center_config).items() if name.isupper() and isinstance(value, Mapping)
                   and all(isinstance(item, Key) for item in value.values())})  # fmt: skip
    assert len(units) > 50 and len(center) > 10
    for page, names in (("man5/unitd.toml.5", units), ("man5/unit-center.toml.5", center)):
        told = set(re.findall(r"[\w.]+", plain(pages[page])))
        assert not names - told


def test_what_would_be_a_request_of_roff_is_text() -> None:
    roff = generator()._roff("""
## A title

.PP is text, `'so'` is *this*, and `--option` **too**: [a page](x.md), [the web](https://example.org/).
'tis a paragraph with a \\ and one `span of
code`.

- an item
  that goes on
- another

| term | type | meaning |
|---|---|---|
| `a\\|b` | t | . → |

```
.not a request
```
""")
    assert roff == [
        ".SH A TITLE", ".PP",
        "\\&.PP is text, \\fB\\(aqso\\(aq\\fR is \\fIthis\\fR, and \\fB\\-\\-option\\fR \\fBtoo\\fR: a page, the web <https://example.org/>.",
        "\\&'tis a paragraph with a \\e and one \\fBspan of", "code\\fR.",
        ".IP \\(bu 2", "an item", "that goes on", ".IP \\(bu 2", "another",
        ".TP", "\\fBa|b\\fR", "(type: t)", ".br", "\\&. \\[u2192]",
        ".PP", ".RS 4", ".EX", "\\&.not a request", ".EE", ".RE",
    ]  # fmt: skip


def test_pages_are_dated_by_the_source_and_not_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    made = generator()
    assert ' 1970-01-02 "unitd ' in made.pages()["man8/unitd.8"]
    assert made.pages() == made.pages()


@pytest.mark.parametrize(
    "line",
    [["mandoc", "-T", "lint", "-W", "warning"], ["man", "--warnings", "-E", "UTF-8", "-Tutf8", "-Z", "-l"]],
    ids=["mandoc", "man"],
)
def test_readers_have_nothing_to_say(pages: dict[str, str], tmp_path: Path, line: list[str]) -> None:
    if shutil.which(line[0]) is None:
        pytest.skip(f"{line[0]} is not installed (Debian packages mandoc, man-db)")
    for name, text in pages.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        done = subprocess.run(
            [*line, path], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=False
        )
        said = done.stderr + (done.stdout if line[0] == "mandoc" else "")
        assert (done.returncode, said) == (0, ""), name
