"""The table [envoy.NAME]: what it means, and what is wrong with one that means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.envoy import KEYS, EnvoySpec, read
from supervisor.config.document import Document
from supervisor.config.table import Problems


def _read(text: str) -> tuple[EnvoySpec, list[str]]:
    problems = Problems()
    document = Document("/etc/unitd/unit-gateway.toml", f"[envoy.mesh]\n{text}".encode())
    spec = read(document, "mesh", problems)
    return spec, [str(error) for error in problems.errors]


def test_defaults_are_those_of_the_reference() -> None:
    """Only folder and admin must be given; relative paths begin at the file's folder."""
    spec, errors = _read('folder = "eds"\nadmin = "127.0.0.1:9901"')
    assert errors == []
    assert spec == EnvoySpec("mesh", "/etc/unitd/eds", ("127.0.0.1:9901",))
    shown = {"services": '["*"]', "file": '"{service}.json"', "cluster": '"{service}"', "zones": "false",
             "look_seconds": "1", "apply_seconds": "5"}  # fmt: skip
    assert {key: KEYS[key].default for key in shown} == shown


def test_all_keys_are_taken() -> None:
    """Each goes to the field of its name."""
    spec, errors = _read(
        'folder = "/eds"\nadmin = ["[::1]:9901", "/run/envoy.sock", "envoy.example:9901"]\nservices = ["cart*", "web"]\n'
        'file = "x-{service}"\ncluster = "prod/{service}"\nevent_log = ["a", "/b"]\nzones = true\n'
        'look_seconds = "500ms"\napply_seconds = 2'
    )
    assert errors == []
    assert spec == EnvoySpec(
        name="mesh",
        folder="/eds",
        admin=("[::1]:9901", "/run/envoy.sock", "envoy.example:9901"),
        services=("cart*", "web"),
        file="x-{service}",
        cluster="prod/{service}",
        event_log=("/etc/unitd/a", "/b"),
        zones=True,
        look_seconds=0.5,
        apply_seconds=2.0,
    )
    assert {key.field for key in KEYS.values()} == set(EnvoySpec.__slots__) - {"name"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('admin = "127.0.0.1:9901"', "folder: missing"),
        ('folder = "/eds"', "admin: missing"),
        ('folder = "/eds"\nadmin = []', "must not be empty"),
        ('folder = "/eds"\nadmin = "9901"', "must be where Envoy's admin interface listens"),
        ('folder = "/eds"\nadmin = 9901', "must be where Envoy's admin interface listens"),
        (f'folder = "/eds"\nadmin = "/{"x" * 120}"', "at most 107 bytes"),
        ('folder = "/eds"\nadmin = "127.0.0.1:9901"\nfile = "eds.json"', "must hold {service}"),
        ('folder = "/eds"\nadmin = "127.0.0.1:9901"\nfile = "a/{service}"', "without a slash"),
        ('folder = "/eds"\nadmin = "127.0.0.1:9901"\ncluster = "cart"', "must hold {service}"),
        ('folder = "/eds"\nadmin = "127.0.0.1:9901"\nlook_seconds = 0', "look_seconds"),
        ('folder = "/eds"\nadmin = "127.0.0.1:9901"\npath = "/x"', "as folder"),
        ('folder = "/eds"\nadmin = "127.0.0.1:9901"\nzone = true', "did you mean zones"),
    ],
)
def test_what_means_nothing_is_an_error_with_its_key(text: str, reason: str) -> None:
    """One each."""
    _, errors = _read(text)
    assert len(errors) == 1
    assert reason in errors[0]
    assert errors[0].startswith("/etc/unitd/unit-gateway.toml:")


def test_the_page_says_what_is_shown_here() -> None:
    """Every key of the table is explained."""
    page = (Path(__file__).parents[3] / "docs" / "reference" / "gateway-configuration.md").read_text()
    assert [key for key in KEYS if f"`{key}`" not in page.partition("### [envoy.NAME]")[2]] == []
