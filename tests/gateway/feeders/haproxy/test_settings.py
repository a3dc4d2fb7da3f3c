"""The table [haproxy.NAME]: what it may hold, and what is said about what it may not."""

from __future__ import annotations

import pytest

from gateway.settings.haproxy import KEYS, DrainBy, HaproxySpec, read
from supervisor.config.document import Document
from supervisor.config.table import Problems


def reading(text: str) -> tuple[HaproxySpec, list[str]]:
    problems = Problems()
    document = Document("/etc/unitd/unit-gateway.toml", f"[haproxy.edge]\n{text}\n".encode())
    return read(document, "edge", problems), [f"{error.line} {error.key}: {error.reason}" for error in problems.errors]


def test_a_socket_is_all_that_is_needed() -> None:
    """The defaults in the tables are those of the spec."""
    spec, errors = reading('socket = "/run/haproxy/admin.sock"')
    assert not errors
    assert spec == HaproxySpec(name="edge", socket="/run/haproxy/admin.sock")


def test_all_keys_are_read() -> None:
    """Relative paths are seen from the file."""
    spec, errors = reading(
        'socket = "127.0.0.1:9999"\nservices = ["cart*", "stock"]\nbackend = "be_{service}"\nslots = "u"\nadd_servers = false\n'
        'server_options = "check"\nstate_file = "state/{service}"\ndrain_by = "maint"\nerror_percent = 20\nlook_seconds = 0.5\n'
        'timeout_seconds = "3s"'
    )
    assert not errors
    assert spec == HaproxySpec(
        name="edge",
        socket=("127.0.0.1", 9999),
        services=("cart*", "stock"),
        backend="be_{service}",
        slots="u",
        add_servers=False,
        server_options="check",
        state_file="/etc/unitd/state/{service}",
        drain_by=DrainBy.MAINT,
        error_percent=20.0,
        look_seconds=0.5,
        timeout_seconds=3.0,
    )


@pytest.mark.parametrize("name", KEYS)
def test_defaults_stand_in_the_table(name: str) -> None:
    """What the reference says is what happens."""
    import tomllib

    if KEYS[name].default in ("required", "(none)"):
        return
    default = KEYS[name].convert(tomllib.loads(f"x = {KEYS[name].default}")["x"])
    assert default == getattr(HaproxySpec(name="edge"), KEYS[name].field)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "1 haproxy.edge.socket: missing: the path after `stats socket` in haproxy.cfg"),
        ('socket = "/s"\nurl = "x"', "3 haproxy.edge.url: "),
        ('socket = "/s"\nlook = 1', "3 haproxy.edge.look: "),
        ('socket = "10.0.0.1.5:99"', "2 haproxy.edge.socket: cannot listen on"),
        (f'socket = "/{"s" * 120}"', "2 haproxy.edge.socket: must be at most 107 bytes long"),
        ('socket = "/s"\nbackend = "a b"', "3 haproxy.edge.backend: must be letters"),
        ('socket = "/s"\nstate_file = "/x/{node}"', "3 haproxy.edge.state_file: may hold {service}, and no other"),
        (
            'socket = "/s"\nserver_options = "check; show info"',
            '3 haproxy.edge.server_options: must be one line without ";"',
        ),
        ('socket = "/s"\ndrain_by = "kill"', '3 haproxy.edge.drain_by: must be one of "drain", "maint"'),
        ('socket = "/s"\nbackend = "all"\nslots = "s"', "3 haproxy.edge.backend: must hold {service} (or slots must)"),
    ],
)
def test_mistakes_are_told_with_line_and_key(text: str, error: str) -> None:
    """One error for one mistake."""
    _, errors = reading(text)
    assert len(errors) == 1
    assert errors[0].startswith(error)


def test_one_service_needs_no_placeholder() -> None:
    """Its backend may have any name."""
    assert reading('socket = "/s"\nservices = ["cart"]\nbackend = "all"\nslots = "s"')[1] == []
