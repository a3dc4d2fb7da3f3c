"""The table [nginx.NAME]."""

from __future__ import annotations

from dataclasses import fields

import pytest

from gateway.settings.nginx import KEYS, NginxSpec, read
from supervisor.config.document import Document
from supervisor.config.table import Problems

from .running import read_spec


def errors(lines: str) -> list[str]:
    problems = Problems()
    read(Document("/etc/unitd/unit-gateway.toml", f"[nginx.front]\n{lines}".encode()), "front", problems)
    return [str(error) for error in problems.errors]


def test_an_empty_table_is_the_nginx_of_a_distribution() -> None:
    assert read_spec("[nginx.front]") == NginxSpec(name="front")


def test_each_key_is_a_field_and_the_defaults_are_as_documented() -> None:
    assert set(KEYS) == {field.name for field in fields(NginxSpec)} - {"name"}
    spec = NginxSpec(name="front")
    documented = [f"{name} = {key.default}" for name, key in KEYS.items() if not key.default.startswith("(")]
    assert read_spec("[nginx.front]\naccess_log = '/x'\n" + "\n".join(documented)) == NginxSpec(
        name="front", access_log="/x"
    )
    assert all(getattr(spec, name) in (None, ()) for name, key in KEYS.items() if key.default.startswith("("))


def test_paths_begin_at_the_folder_of_the_file_and_commands_are_split() -> None:
    spec = read_spec("[nginx.front]\nfile = 'up.conf'\nreload = 'systemctl reload nginx'\ntemplate = 't'")
    assert (spec.file, spec.template) == ("/etc/unitd/up.conf", "/etc/unitd/t")
    assert spec.reload == ("systemctl", "reload", "nginx")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("weight_steps = [50, 25, 100]", "must rise"),
        ("weight_steps = [25, 50]", "end with 100"),
        ("weight_steps = []", "must rise"),
        ("weight_steps = [0, 100]", "item 1"),
        ('balance = "least_conn; server 10.0.0.9:80"', "one directive"),
        ('balance = "hash {"', "one directive"),
        ('upstream = "cart"', "{service}"),
        ('upstream = "{service};"', "{service}"),
        ("coalesce_seconds = -1", "seconds"),
        ('output = "x"', "it is called file"),
        ("keepalve = 1", "keepalive"),
        ("template = 't'\nkeepalive = 64", "means nothing with a template"),
        ("error_percent = 10", "means nothing without access_log"),
        ("services = 'cart'", "must be a list"),
    ],
)
def test_what_is_wrong_is_told(lines: str, words: str) -> None:
    assert [words in error for error in errors(lines)] == [True]


def test_a_hash_is_a_way_to_balance() -> None:
    assert read_spec('[nginx.front]\nbalance = "hash $arg_cart consistent;"').balance == "hash $arg_cart consistent"
