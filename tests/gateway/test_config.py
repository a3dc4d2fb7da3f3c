"""unit-gateway's configuration: what is read, what is refused and where, and that its page tells the truth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import config
from gateway.config import EMBEDDED, GatewayConfig, alone, check, load, only_embedded
from gateway.pool import PoolPolicy
from gateway.reports import ReportPolicy
from supervisor.config.loader import ConfigErrors
from supervisor.config.schema import Key
from supervisor.core.model import CenterSpec, RegistrySpec, TlsSpec
from supervisor.errors import ConfigError

ROOT = Path(__file__).parents[2]
PATH = "/etc/unitd/unit-gateway.toml"
EXAMPLE = ROOT / "etc" / "unit-gateway.toml"
PAGE = (ROOT / "docs" / "reference" / "gateway-configuration.md").read_text()
PLACES = [("", "name"), *((table, key) for table, keys in config.TABLES.items() for key in keys)]
REGISTRY = '[registry]\nbackend = "http"\nurl = "http://10.0.0.5:9301"\n'
LEAST = f'{REGISTRY}[haproxy.edge]\nsocket = "/run/h.sock"\n'


def loaded(text: str) -> GatewayConfig:
    return load(PATH, read=lambda path: text.encode(), host="here")


def errors(text: str) -> list[ConfigError]:
    return check(PATH, read=lambda path: text.encode(), host="here")


def error(text: str) -> tuple[str, int, str]:
    (found,) = errors(text)
    assert found.path == PATH
    return found.key, found.line, found.reason


def test_a_registry_and_a_gateway_are_enough() -> None:
    read = loaded(LEAST)
    assert (read.name, read.state_dir, read.listen) == ("here", "/var/lib/unit-gateway", ("127.0.0.1", 9320))
    assert read.registry == RegistrySpec(backend="http", url="http://10.0.0.5:9301", ttl_seconds=10.0)
    assert read.pools == PoolPolicy() and read.reports == ReportPolicy() and read.center is None
    (only,) = read.feeders
    assert (only.kind, only.spec.name, only.spec.services) == ("haproxy", "edge", ("*",))


def test_everything_that_can_be_said_is_read() -> None:
    read = loaded("""
name = "gw-1"
[gateway]
state_dir = "state"
log_level = "debug"
ttl_seconds = 5
resync_seconds = "2m"
confirm_seconds = 1
hold_percent = 30
young_seconds = 0
[http]
listen = "[::1]:9999"
[registry]
backend = "consul"
url = "http://127.0.0.1:8500"
token_file = "token"
tls = { ca = "ca.pem" }
[center]
url = ["https://a:1", "https://b:2"]
token_file = "center-token"
[reports]
failures = 1
within_seconds = 2
repeat_seconds = 3
clear_seconds = 4
[haproxy.edge]
socket = "h.sock"
services = ["cart*"]
[envoy.mesh]
folder = "eds"
admin = "127.0.0.1:9901"
[nginx.front]
[proxy.shop]
listen = "127.0.0.1:8080"
routes = [{ service = "cart" }, { service = "stock", prefix = "/stock" }]
""")
    here = "/etc/unitd"
    assert (read.name, read.state_dir, read.log_level) == ("gw-1", f"{here}/state", "debug")
    assert (read.ttl_seconds, read.resync_seconds, read.listen) == (5.0, 120.0, ("::1", 9999))
    assert read.pools == PoolPolicy(confirm_seconds=1.0, hold_percent=30.0, young_seconds=0.0)
    assert read.registry == RegistrySpec(
        backend="consul", url="http://127.0.0.1:8500", ttl_seconds=10.0, token_file=f"{here}/token",
        tls=TlsSpec(ca=f"{here}/ca.pem"),
    )  # fmt: skip
    assert read.center == CenterSpec(("https://a:1", "https://b:2"), token_file=f"{here}/center-token")
    assert read.reports == ReportPolicy(failures=1, within_seconds=2.0, repeat_seconds=3.0, clear_seconds=4.0)
    kinds = [(each.kind, each.spec.name, each.spec.services) for each in read.feeders]
    assert kinds == [
        ("haproxy", "edge", ("cart*",)),
        ("nginx", "front", ("*",)),
        ("envoy", "mesh", ("*",)),
        ("proxy", "shop", ("cart", "stock")),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"nmae = 'x'\n{LEAST}", ("nmae", 1, "unknown key; did you mean name?")),
        (f"node = 'x'\n{LEAST}", ("node", 1, "unknown key: it is called name")),
        (f"{LEAST}[gatway]\n", ("gatway", 6, "unknown key; did you mean gateway?")),
        (f"[gateway]\nresync_second = 1\n{LEAST}", ("gateway.resync_second", 2, "unknown key; did you mean resync_s")),
        (f"[gateway]\nhold_percent = 101\n{LEAST}", ("gateway.hold_percent", 2, "must be a number from 0 to 100")),
        (f"[gateway]\nlog_level = 'loud'\n{LEAST}", ("gateway.log_level", 2, 'must be one of "debug"')),
        (f"gateway = 3\n{LEAST}", ("gateway", 1, "must be a table, not 3")),
        (f"[http]\nlisten = '0.0.0.0:1'\n{LEAST}", ("http.listen", 2, "cannot listen on 0.0.0.0: this API asks")),
        (f"[http]\nlisten = 'x'\n{LEAST}", ("http.listen", 2, "must be an IP address and a port")),
        (f"[http.access.a]\n{LEAST}", ("http.access", 1, "unknown key: this API is for this host alone")),
        ("[haproxy.edge]\nsocket = '/s'", ("registry.backend", 0, "a gateway hosts no registry: write backend")),
        (
            "[registry]\nbackend = 'embedded'\n[haproxy.edge]\nsocket = '/s'",
            ("registry.backend", 2, "a gateway hosts no registry"),
        ),
        (f"{LEAST}[registry.also.x]\nbackend = 'consul'", ("registry.also", 6, "a gateway follows one registry")),
        (REGISTRY + "ttl_seconds = 1\n[haproxy.e]\nsocket = 's'", ("registry.ttl_seconds", 4, "write it into [gate")),
        ("[registry]\nbackend = 'http'\n[haproxy.e]\nsocket = 's'", ("registry.url", 1, "missing: the http backend")),
        (f"{LEAST}[center]\nurl = 'https://c:1'\npull = true", ("center.pull", 8, "unknown key: a gateway fetches no")),
        (f"{LEAST}[center]\n", ("center.url", 6, "missing: where the control center answers")),
        (f"{LEAST}[reports]\nfailures = 0", ("reports.failures", 7, "must be a whole number from 1")),
        (REGISTRY, ("", 0, "there is no gateway to keep in step: write [haproxy.NAME]")),
        (f"{LEAST}[nginx.edge]\n", ("nginx.edge", 6, "[haproxy.edge] has the same name: each gateway needs its own")),
        (f"{LEAST}[nginx.'a b']\n", ("nginx.'a b'", 6, "the name of a gateway must be a name of 1 to 64")),
        (f"{LEAST}[haproxy.e2]\nsockett = '/s'", ("haproxy.e2.socket", 6, "missing")),
        (f"{LEAST}[nginx]\nfront = 1\n", ("nginx.front", 7, "must be a table, not 1: write [nginx.NAME]")),
        (
            f"{LEAST}[proxy]\nlisten = '127.0.0.1:1'",
            ("proxy.listen", 7, "must be a table, not '127.0.0.1:1': write [p"),
        ),
        (
            f"{REGISTRY}[nginx.a]\nfile = '/f'\n[nginx.b]\nfile = '/f'",
            ("nginx.b.file", 7, "[nginx.a] has the same one"),
        ),
        ("[gateway\n", ("", 1, "not valid TOML")),
    ],
)
def test_what_cannot_be_is_refused_with_line_key_and_reason(text: str, expected: tuple[str, int, str]) -> None:
    found = errors(text)
    assert found and all(each.path == PATH for each in found)
    assert (found[0].key, found[0].line) == expected[:2]
    assert found[0].reason.startswith(expected[2])


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    found = errors(f"nmae = 'x'\n[reports]\nfailures = 0\n[gateway]\nttl_seconds = 'x'\n{LEAST}")
    assert [each.line for each in found] == [1, 3, 5]
    assert len(errors("[gateway]\n" + "".join(f"x{number} = 1\n" for number in range(300)))) == 100


def test_a_host_whose_name_cannot_stand_for_the_gateway_asks_for_one() -> None:
    (found,) = check(PATH, read=lambda path: LEAST.encode(), host="a b")
    assert (found.key, found.reason[:7]) == ("name", "missing")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"nothing\.toml: cannot read it: No such file"):
        load(str(tmp_path / "nothing.toml"))


def test_serve_runs_the_embedded_gateways_of_a_file_only() -> None:
    text = f'{LEAST}[proxy.shop]\nlisten = "127.0.0.1:8080"\nroutes = [{{ service = "cart" }}]\n'
    assert [each.kind for each in only_embedded(loaded(text), PATH).feeders] == [EMBEDDED]
    with pytest.raises(ConfigError, match=r"unit-gateway\.toml: there is no embedded gateway to run: write \[proxy"):
        only_embedded(loaded(LEAST), PATH)


def test_serve_needs_no_file() -> None:
    read = alone(registry="http://127.0.0.1:9301", listen="127.0.0.1:8080", service="cart", name="g")
    assert (read.name, read.state_dir, read.listen, read.registry.url) == ("g", None, None, "http://127.0.0.1:9301")
    (only,) = read.feeders
    assert (only.kind, only.spec.name, only.spec.services) == (EMBEDDED, "serve", ("cart",))
    with_api = alone(registry="http://127.0.0.1:1", listen="127.0.0.1:8080", service="cart", api="127.0.0.1:5")
    assert with_api.listen == ("127.0.0.1", 5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"service": "x"}, "serve without a file needs --registry, --listen and --service"),
        ({"listen": "x"}, "--listen: must be an IP address and a port"),
        ({"registry": "ftp:/x"}, "--registry: must be"),
        ({"service": "a/b"}, "--service: must be a name"),
        ({"api": "10.0.0.1:80"}, "--api: cannot listen on 10.0.0.1: this API asks nobody"),
        ({"name": "a b"}, "--name: must be a name"),
    ],
)
def test_serve_without_a_file_says_which_option_is_wrong(options: dict[str, str], complaint: str) -> None:
    good = {"registry": "http://127.0.0.1:1", "listen": "127.0.0.1:2", "service": "s"}
    given = options if "needs" in complaint else good | options
    with pytest.raises(ConfigError, match="^" + re.escape(complaint)):
        alone(**given)


def test_the_example_is_valid_and_what_it_comments_out_is_the_default() -> None:
    text = EXAMPLE.read_text()
    plain = load(str(EXAMPLE), host="here")
    top, _, rest = text.partition("# [center]")
    middle, _, last = rest.partition("[reports]")
    reports, _, gateways = last.partition("# [nginx.front]")
    names = r"^# (?=\w+ = )(?!name|token_file)"
    shown = re.sub(names, "", top, flags=re.M) + "[reports]" + re.sub(names, "", reports, flags=re.M)
    assert shown.count("\n# ") < top.count("\n# ")
    assert load(str(EXAMPLE), read=lambda path: shown.encode(), host="here") == plain
    optional = "[center]" + middle.replace("\n# ", "\n") + "[nginx.front]" + gateways.replace("\n# ", "\n")
    everything = load(str(EXAMPLE), read=lambda path: (text + optional).encode(), host="here")
    assert [each.kind for each in everything.feeders] == ["haproxy", "nginx", "envoy", "proxy"]
    assert everything.center is not None


SCALARS = (
    st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["10s", "/a", "{service}", "127.0.0.1:80", "[::1]:1", "http://a:1", "a;b", "x\ny", "debug", "drain"])
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


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([place for place in PLACES if not place[0].endswith("routes")]), VALUES)
def test_any_value_of_any_key_is_accepted_or_refused_in_its_table(place: tuple[str, str], value: Any) -> None:
    """And never crashes, whichever kind of gateway reads it."""
    table = place[0].replace("NAME", "a")
    key = f"{table}.{place[1]}".lstrip(".")
    found = errors(f"{key} = {toml(value)}\n")
    assert all(each.path == PATH for each in found)
    blamed = [each for each in found if each.key.startswith(key)]
    others = [each for each in found if not each.key.startswith((key.partition(".")[0], "registry")) and each.key]
    assert not others and all(each.line for each in blamed if "missing" not in each.reason)


# The reference page.


def documented() -> dict[tuple[str, str], tuple[str, str]]:
    """(table, key) -> type and default, as the page has them."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    table: str | None = None
    for line in PAGE.splitlines():
        if heading := re.fullmatch(r"#+ (?:\[+(.+?)\]+|(.*))", line):
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


REQUIRED = {
    "haproxy": 'socket = "/s"\n',
    "envoy": 'folder = "/e"\nadmin = "127.0.0.1:1"\n',
    "proxy": 'listen = "127.0.0.1:2"\nroutes = [{ service = "s" }]\n',
    "center": 'url = "https://c:1"\n',
}


@pytest.mark.parametrize(
    "place",
    [place for place in PLACES if key_of(place).default[0] not in "(r" and not place[0].endswith("routes")],
    ids=".".join,
)
def test_a_default_is_what_counts_where_nothing_is_said(place: tuple[str, str]) -> None:
    table, key = place
    head = table.partition(".")[0]
    before = "" if head == "haproxy" else LEAST
    if head == "registry":
        before, needed = '[haproxy.edge]\nsocket = "/run/h.sock"\n' + REGISTRY, ""
    else:
        needed = REQUIRED.get(head, "")
    name = table.replace("NAME", "a")
    lines = f"[{name}]\n{needed}" if not table.endswith(".tls") else f"[{head}]\n{needed}[{name}]\n"
    if head == "registry":
        lines = "" if table == "registry" else f"[{name}]\n"
    if place == ("nginx.NAME", "error_percent"):
        lines += 'access_log = "/a"\n'
    text = f"{before or REGISTRY}{lines}"
    if table.endswith(".tls"):
        text = text.replace("http://", "https://")
    assert loaded(f"{text}{key} = {key_of(place).default}\n") == loaded(text)
