"""The table [checks]: where load balancers ask, and what else must not listen there."""

from __future__ import annotations

import pytest

from tests.supervisor.config_files import MAIN, errors, loaded

UNIT = '[unit.a]\ncommand = "x"\nservice.port = 9302'


def test_without_the_table_nobody_can_ask() -> None:
    assert loaded("").daemon.checks is None


@pytest.mark.parametrize(
    ("written", "listen"),
    [("10.0.0.7:9302", ("10.0.0.7", 9302)), ("[::]:9302", ("::", 9302)), ("0.0.0.0:1", ("0.0.0.0", 1))],
)
def test_an_address_beyond_this_host_needs_nothing_else(written: str, listen: tuple[str, int]) -> None:
    assert loaded(f'checks.listen = "{written}"').daemon.checks == listen


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[checks]", "checks.listen", "missing"),
        ("checks = 1", "checks", "must be a table"),
        ('checks.listen = "here:9302"', "checks.listen", "must be an IP address and a port"),
        ('checks = { listen = "127.0.0.1:1", port = 2 }', "checks.port", "write listen"),
        ('checks = { listen = "127.0.0.1:1", tls = {} }', "checks.tls", "there is none"),
        ('checks.listen = "127.0.0.1:1"\nhttp.listen = "127.0.0.1:1"', "checks.listen", "[http] listens there"),
        ('checks.listen = "0.0.0.0:1"\nhttp.listen = "127.0.0.1:1"', "checks.listen", "[http] listens there"),
        (f'checks.listen = "127.0.0.1:9302"\n{UNIT}', "unit.a.service.port", "which [checks] listen has"),
        (f'checks.listen = "0.0.0.0:9302"\n{UNIT}', "unit.a.service.port", "which [checks] listen has"),
    ],
)
def test_a_mistake_is_told_at_its_key(text: str, key: str, words: str) -> None:
    found = errors(text)
    assert found[0].key == key and words in found[0].reason, found
    assert found[0].path == MAIN and found[0].line


def test_another_address_with_the_same_port_is_another_place() -> None:
    text = f'checks.listen = "10.0.0.7:9302"\nhttp.listen = "127.0.0.1:9302"\n{UNIT.replace("9302", "9303")}'
    assert loaded(text).daemon.checks == ("10.0.0.7", 9302)
