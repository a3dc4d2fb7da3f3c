"""Placeholders in values, and the lines of environment files."""

from __future__ import annotations

import pytest

from supervisor.config import load
from supervisor.config.text import expand, parse_env_file
from supervisor.errors import ConfigError
from tests.supervisor.config_files import MAIN, Files, error, loaded, unit, unit_error

KNOWN = {"port": "80", "number": "1", "unit": "a:1", "group": "a", "node": "here"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("{port}{number}{unit}{group}{node}", "801a:1ahere"),
        ("{{port}}", "{port}"),
        ("{{{port}}}", "{80}"),
        ("${port} ${HOME} ${X:-{port}}", "${port} ${HOME} ${X:-80}"),
        ("awk '{print $1}'", "awk '{print $1}'"),
        ("find {} +", "find {} +"),
        ("a{1,2} {1..3} { port } {", "a{1,2} {1..3} { port } {"),
        ('{"a":{"port":{port}}}', '{"a":{"port":80}}'),
        ('{{"a":{{"b":1}}}}', '{"a":{"b":1}}'),
        ("}} {{ }} }}", "}} { } }}"),
        ("100%(x)s %(message)s", "100%(x)s %(message)s"),
    ],
)
def test_placeholders_are_filled_and_other_braces_left_alone(text: str, expanded: str) -> None:
    assert expand(text, KNOWN) == expanded


def test_an_unknown_placeholder_names_the_nearest_and_how_to_write_braces() -> None:
    found = unit_error('directory = "/srv/{nubmer}"')
    assert found.key == "unit.a.directory"
    assert found.line == 3
    assert "did you mean {number}?" in found.reason
    assert "{{nubmer}}" in found.reason


def test_a_port_needs_a_service() -> None:
    found = error('[unit.a]\ncommand = "serve {port}"')
    assert (found.key, found.line) == ("unit.a.command", 2)
    assert "no port" in found.reason


def test_placeholders_of_supervisord_are_told_from_percent_signs_of_others() -> None:
    assert "%(process_num)" in error('[unit.a]\ncommand = "x %(process_num)02d"').reason
    assert unit("environment = { F = '%(message)s' }").environment == (("F", "%(message)s"),)


def test_lines_of_an_environment_file_become_variables() -> None:
    text = """
# a comment
A=1
export B = no
  export  C=two words # kept
D='single $X \\ # kept'
E="double \\"x\\" \\$ \\n \\\\" # a comment
F=
G=a=b
A=last
H="x"y
"""
    with pytest.raises(ConfigError):
        parse_env_file("/e", text.encode())
    good = [line for line in text.splitlines() if not line.startswith(("export B", "H"))]
    assert dict(parse_env_file("/e", "\r\n".join(good).encode())) == {
        "A": "last", "C": "two words # kept", "D": "single $X \\ # kept", "E": 'double "x" $ \\n \\', "F": "",
        "G": "a=b",
    }  # fmt: skip


def test_errors_in_an_environment_file_name_it_and_its_line() -> None:
    files = {"/etc/unitd/e": "A=1\n\nB='x\n"}
    found = error('[unit.a]\ncommand = "x"\nenvfile = "e"', **files)
    assert (found.path, found.line) == ("/etc/unitd/e", 3)


def test_environment_wins_over_the_environment_file() -> None:
    config = loaded('[unit.a]\ncommand = "x"\nenvfile = "e"\nenvironment = {A = "2"}', **{"/etc/unitd/e": "A=1\nB=1"})
    assert config.units["a"].environment == (("A", "2"), ("B", "1"))


def test_an_environment_file_is_read_once_for_all_processes() -> None:
    files = Files(**{MAIN: '[unit.a]\ncommand = "x"\nenvfile = "e"\nnumprocs = 9', "/etc/unitd/e": "A=1"})
    reads = []

    def read(path: str) -> bytes:
        reads.append(path)
        return files.read(path)

    assert len(load(MAIN, read=read, node="here").units) == 9
    assert reads == [MAIN, "/etc/unitd/e"]
