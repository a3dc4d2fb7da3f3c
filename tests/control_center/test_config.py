"""The control center's configuration: what is read, what is refused and where, and that its page tells the truth."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_center import config
from control_center.config import CenterConfig, NodesSpec, check, load
from control_center.detector import DetectorPolicy
from control_center.guard import GuardPolicy
from control_center.model import Mode, Strategy
from supervisor.config.loader import ConfigErrors
from supervisor.config.schema import Key
from supervisor.core.access import Principal, Role
from supervisor.core.model import HttpSpec, RegistrySpec, ServerTlsSpec, TlsSpec
from supervisor.errors import ConfigError

ROOT = Path(__file__).parents[2]
PATH = "/etc/unitd/unit-center.toml"
EXAMPLE = ROOT / "etc" / "unit-center.toml"
PAGE = (ROOT / "docs" / "reference" / "center-configuration.md").read_text()
PLACES = [("", "name"), *((table, key) for table, keys in config.TABLES.items() for key in keys)]


def loaded(text: str) -> CenterConfig:
    return load(PATH, read=lambda path: text.encode(), host="here")


def errors(text: str) -> list[ConfigError]:
    return check(PATH, read=lambda path: text.encode(), host="here")


def error(text: str) -> tuple[str, int, str]:
    (found,) = errors(text)
    assert found.path == PATH
    return found.key, found.line, found.reason


def test_an_empty_file_is_a_center_for_one_machine() -> None:
    assert loaded("") == CenterConfig(name="here", registry=RegistrySpec(ttl_seconds=10.0))
    assert loaded("").http == HttpSpec(("127.0.0.1", 9300))
    assert loaded("").store_url == "sqlite:////var/lib/unit-center/center.sqlite"


def test_everything_that_can_be_said_is_read() -> None:
    text = f"""
name = "center-1"
[center]
state_dir = "state"
store = "postgresql://user@db.example:5433/center"
password_file = "secret"
mode = "observe"
log_level = "debug"
[http]
listen = "10.0.0.2:9300"
tls = {{ cert = "c.pem", key = "/k.pem", client_ca = "ca.pem" }}
[http.access.anna]
role = "operate"
services = ["cart*"]
token_sha256 = "{"0" * 64}"
[registry]
backend = "consul"
url = "http://127.0.0.1:8500"
token_file = "consul-token"
tls = {{ ca = "ca.pem" }}
[nodes]
token_file = "node-token"
heartbeat_seconds = "500ms"
timeout_seconds = 2
parallel = 8
tls = {{ ca = "ca.pem", cert = "c.pem", key = "k.pem", verify = false, server_name = "node.example" }}
[guard]
quorum = 3
fleet_per_minute = 0.5
[detector]
suspect = 5
samples = 100
[rollout]
batch = 2
by_zone = false
"""
    here = "/etc/unitd"
    assert loaded(text) == CenterConfig(
        name="center-1",
        state_dir=f"{here}/state",
        store_url="postgresql://user@db.example:5433/center",
        password_file=f"{here}/secret",
        mode=Mode.OBSERVE,
        log_level="debug",
        http=HttpSpec(
            ("10.0.0.2", 9300),
            ServerTlsSpec(f"{here}/c.pem", "/k.pem", f"{here}/ca.pem"),
            (Principal("anna", Role.OPERATE, services=("cart*",), token_sha256=("0" * 64,)),),
        ),
        registry=RegistrySpec(
            backend="consul",
            url="http://127.0.0.1:8500",
            ttl_seconds=10.0,
            token_file=f"{here}/consul-token",
            tls=TlsSpec(ca=f"{here}/ca.pem"),
        ),
        nodes=NodesSpec(
            token_file=f"{here}/node-token",
            heartbeat_seconds=0.5,
            timeout_seconds=2.0,
            parallel=8,
            tls=TlsSpec(False, f"{here}/ca.pem", f"{here}/c.pem", f"{here}/k.pem", "node.example"),
        ),
        guard=GuardPolicy(quorum=3, fleet_per_minute=0.5),
        detector=DetectorPolicy(suspect=5.0, samples=100),
        rollout=Strategy(batch="2", by_zone=False),
    )


def test_the_store_of_sqlite_is_in_the_state_folder() -> None:
    assert loaded('[center]\nstate_dir = "/srv/a b?#%"\n').store_url.startswith("sqlite:////srv/a b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nmae = 'x'", ("nmae", 1, "unknown key; did you mean name?")),
        ("node = 'x'", ("node", 1, "unknown key: it is called name")),
        ("[guard]\nquorun = 2", ("guard.quorun", 2, "unknown key; did you mean quorum?")),
        ("[nodes]\ntoken = 'x'", ("nodes.token", 2, "unknown key: tokens do not stand in this file: write token_file")),
        ("[http]\nadvertise = 'x:1'", ("http.advertise", 2, "unknown key; known here: listen, tls, access")),
        ("[http]\nlisten = '0.0.0.0:9300'", ("http.listen", 2, "cannot listen on 0.0.0.0 without TLS")),
        ("guard = 3", ("guard", 1, "must be a table, not 3")),
        ("[center]\nstore = 'mysql://a/b'", ("center.store", 2, 'must be "sqlite", or a URL such as')),
        ("[center]\nstore = 7", ("center.store", 2, 'must be "sqlite", or a URL such as')),
        ("[center]\nstore = 'postgresql://u:p@h/d'", ("center.store", 2, "must hold no password")),
        ("[center]\nstore = 'postgresql://h'", ("center.store", 2, "must end with the name of the database")),
        ("[center]\nstore = 'postgresql://h/d?a=b'", ("center.store", 2, "must end with the name of the database")),
        ("[center]\nstore = 'postgresql://h:x/d'", ("center.store", 2, 'must be "sqlite", or a URL such as')),
        ("[center]\npassword_file = 'x'", ("center.password_file", 2, "means nothing for sqlite")),
        ("[center]\nmode = 'off'", ("center.mode", 2, 'must be one of "observe", "assist", "full"')),
        ("[nodes.tls]\nkey = 'x'", ("nodes.tls.key", 2, "means nothing without cert")),
        ("[nodes]\nparallel = 0", ("nodes.parallel", 2, "must be a whole number from 1 to 10000, not 0")),
        ("[registry]\nbackend = 'consul'", ("registry.url", 1, "missing: the consul backend needs it")),
        ("[registry.also.x]\nbackend = 'consul'", ("registry.also", 1, "the control center follows one registry")),
        ("[guard]\nbackoff_initial = 400", ("guard.backoff_initial", 2, "is above backoff_max (300 s)")),
        ("[detector]\nsuspect = 12", ("detector.suspect", 2, "must be below dead (12)")),
        ("[rollout]\nfloor_percent = 101", ("rollout.floor_percent", 2, "must be a number from 0 to 100, not 101")),
        ("[rollout]\nbatch = '0%'", ("rollout.batch", 2, "must be a number of units such as 2, or a share")),
        ("[rollout]\nbatch = '101%'", ("rollout.batch", 2, "must be a number of units such as 2, or a share")),
        ("[rollout]\nbatch = '²'", ("rollout.batch", 2, "must be a number of units such as 2, or a share")),
        ("[rollout]\nbatch = true", ("rollout.batch", 2, "must be a number of units such as 2, or a share")),
        ("[center\n", ("", 1, "not valid TOML")),
    ],
)
def test_what_cannot_be_is_refused_with_line_key_and_reason(text: str, expected: tuple[str, int, str]) -> None:
    key, line, reason = error(text)
    assert (key, line) == expected[:2]
    assert reason.startswith(expected[2])


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    found = errors("nmae = 'x'\n[rollout]\nbatch = 0\n[center]\nmode = 1\nstore = 2\npassword_file = 'x'\n")
    assert [each.line for each in found] == [1, 3, 5, 6]
    with pytest.raises(ConfigErrors) as caught:
        loaded("[guard]\na = 1\nb = 2\n")
    assert len(caught.value.errors) == 2
    assert len(errors("[guard]\n" + "".join(f"x{number} = 1\n" for number in range(300)))) == 100


def test_a_host_whose_name_cannot_stand_for_the_center_asks_for_one() -> None:
    (found,) = check(PATH, read=lambda path: b"", host="a b")
    assert (found.key, found.reason[:7]) == ("name", "missing")
    assert load(PATH, read=lambda path: b"name = 'c'", host="a b").name == "c"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"nothing\.toml: cannot read it: No such file"):
        load(str(tmp_path / "nothing.toml"))
    with pytest.raises(ConfigErrors, match=r"(?i)is a directory"):
        load(str(tmp_path))


def test_the_password_of_the_store_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[center]\nstore = 'postgresql://h/d'\npassword_file = 'secret'\n")
    read = load(str(tmp_path / "c.toml"))
    with pytest.raises(ConfigError, match="secret: cannot read it: No such file"):
        read.store_password()
    (tmp_path / "secret").write_text(" p w \n")
    assert read.store_password() == " p w "
    assert loaded("").store_password() is None


SCALARS = (
    st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["10s", "25%", "postgresql://h/d", "sqlite", "full", "/a", "127.0.0.1:80", "consul", "0" * 64])
)  # fmt: skip
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=5), SCALARS, max_size=3)


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return repr(value)


def with_key(table: str, key: str, value: str) -> str:
    """A valid configuration but for one key, which has that value."""
    place = f"{table}.{key}".replace("NAME", "a").lstrip(".")
    lines = {place: value}
    if key == "backend":
        lines["registry.url"] = '"http://10.0.0.5:9301"'
    if key == "password_file" and table == "center":
        lines["center.store"] = '"postgresql://h/d"'
    if table == "http.access.NAME":
        lines.setdefault("http.access.a.role", '"read"')
        lines.setdefault("http.access.a.token_sha256", f'"{"1" * 64}"')
        lines["http.tls.client_ca"] = '"ca.pem"'
    if any(line.startswith("http.tls.") for line in lines):
        lines.setdefault("http.tls.cert", '"x.pem"')
    if table == "nodes.tls" or table == "registry.tls":
        lines.setdefault(f"{table}.cert", '"x.pem"')
    if key == "dead":
        lines["detector.suspect"] = "0.1"
    if key == "backoff_max":
        lines["guard.backoff_initial"] = "0"
    return "".join(f"{name} = {text}\n" for name, text in lines.items())


@settings(max_examples=300)
@given(st.sampled_from(PLACES), VALUES)
def test_any_value_of_any_key_is_accepted_or_refused_at_that_key(place: tuple[str, str], value: Any) -> None:
    table, key = place
    found = errors(with_key(table, key, toml(value)))
    name = f"{table}.{key}".replace("NAME", "a").lstrip(".")
    related = {"detector.dead": "detector.suspect"}.get(name, name)
    assert all(each.key.startswith((name, related)) and each.line for each in found)


def test_the_example_is_valid_and_what_it_comments_out_is_the_default() -> None:
    text = EXAMPLE.read_text()
    assert load(str(EXAMPLE), host="here") == loaded("[registry]\nttl_seconds = 10")
    shown = re.sub(
        r"^# (?=\w+ = )(?!name|password_file|token_file|cert|client_ca|role|services|token_sha256)",
        "",
        text,
        flags=re.M,
    )
    assert shown.count("\n# ") < text.count("\n# ")
    assert load(str(EXAMPLE), read=lambda path: shown.encode(), host="here") == load(str(EXAMPLE), host="here")


# The reference page.


def documented() -> dict[tuple[str, str], tuple[str, str]]:
    """(table, key) -> type and default, as the page has them."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    table: str | None = None
    for line in PAGE.splitlines():
        if heading := re.fullmatch(r"#+ (?:\[(.+)\]|(.*))", line):
            table = heading[1] or ("" if heading[2] == "Main file" else None)
        elif table is not None and (row := re.fullmatch(r"\| `(\w+)` \| (.*?) \| (.*?) \| .+ \|", line)):
            assert (table, row[1]) not in found
            found[table, row[1]] = row[2], row[3].strip("`")
    return found


DOCUMENTED = documented()


def key_of(place: tuple[str, str]) -> Key:
    return (config.TABLES[place[0]] if place[0] else config.MAIN)[place[1]]


def test_the_reference_names_every_key_and_no_other() -> None:
    assert sorted(DOCUMENTED) == sorted(PLACES)


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_the_reference_has_the_type_and_default_of_a_key(place: tuple[str, str]) -> None:
    assert DOCUMENTED[place] == (key_of(place).type, key_of(place).default)


@pytest.mark.parametrize("place", [place for place in PLACES if key_of(place).default[0] not in "(r"], ids=".".join)
def test_a_default_is_what_counts_where_nothing_is_said(place: tuple[str, str]) -> None:
    text = with_key(*place, key_of(place).default)
    without = text.partition("\n")[2]
    assert loaded(text) == loaded(without)


@pytest.mark.parametrize(
    ("table", "kind"),
    [("guard", GuardPolicy), ("detector", DetectorPolicy), ("rollout", Strategy), ("nodes", NodesSpec)],
)
def test_every_field_of_a_policy_can_be_set(table: str, kind: type) -> None:
    assert {each.name for each in fields(kind)} - {"tls"} == set(config.TABLES[table])


def test_the_configuration_on_the_page_is_valid() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    assert loaded(block).rollout.floor_percent == 80
