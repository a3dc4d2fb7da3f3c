"""Where the API is served over TCP, and to whom: [http], [http.tls] and [http.access.NAME]."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisor.config import may_need_ssl
from supervisor.config.access import read_http
from supervisor.config.document import Document
from supervisor.config.table import Problems
from supervisor.core.access import Principal, Role
from supervisor.core.model import HttpSpec, ServerTlsSpec
from tests.supervisor.config_files import error, errors, loaded

HASH, OTHER = "0" * 63 + "a", "1" * 64
LISTEN = '[http]\nlisten = "10.0.0.7:9301"\n'
TLS = '[http.tls]\ncert = "tls/node.pem"\n'
ACCESS = f'[http.access.me]\nrole = "admin"\ntoken_sha256 = "{HASH}"\n'


def http(text: str) -> HttpSpec:
    spec = loaded(text).daemon.http
    assert spec is not None
    return spec


def test_beyond_loopback_it_takes_a_certificate_and_somebody_who_may_use_it() -> None:
    spec = http(LISTEN + TLS + ACCESS)
    assert spec.listen == ("10.0.0.7", 9301)
    assert spec.tls == ServerTlsSpec("/etc/unitd/tls/node.pem")
    assert spec.principals == (Principal("me", Role.ADMIN, token_sha256=(HASH,)),)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.7", "[fe80::1]", "[2001:db8::7]"])
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("", "without TLS and anybody who may use it"),
        (TLS, "without anybody who may use it: write [http.access.NAME]"),
        (TLS + "[http.access]\n", "without anybody who may use it"),
        (ACCESS, 'without TLS: write [http.tls] with cert = "..."'),
    ],
)
def test_an_address_beyond_loopback_is_refused_at_its_line_without_both(host: str, more: str, words: str) -> None:
    found = error(f'\n[http]\nlisten = "{host}:9301"\n{more}')
    assert (found.key, found.line) == ("http.listen", 3)
    assert words in found.reason


def test_loopback_needs_neither_and_may_have_both() -> None:
    assert http('[http]\nlisten = "[::1]:9301"') == HttpSpec(("::1", 9301))
    assert http('[http]\nlisten = "127.0.0.1:9301"\n' + TLS).tls is not None
    assert len(http('[http]\nlisten = "127.0.0.1:9301"\n' + ACCESS).principals) == 1


def test_every_key_of_an_entry_counts() -> None:
    tls = TLS + 'key = "/k.pem"\nclient_ca = "ca.pem"\n'
    entry = (
        f'[http.access.center]\nrole = "operate"\nservices = ["cart*", "search"]\nnodes = ["web-*"]\n'
        f'token_sha256 = ["{HASH.upper()}", "{OTHER}"]\ncertificate = ["center.example", "spiffe://example/center"]\n'
    )
    spec = http(LISTEN + tls + entry)
    assert spec.tls == ServerTlsSpec("/etc/unitd/tls/node.pem", "/k.pem", "/etc/unitd/ca.pem")
    assert spec.principals == (
        Principal(
            "center",
            Role.OPERATE,
            ("cart*", "search"),
            ("web-*",),
            (HASH, OTHER),
            ("center.example", "spiffe://example/center"),
        ),
    )


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[http.tls]\n" + 'key = "x"\n' + ACCESS, "http.tls.cert", "missing"),
        (TLS + 'ca = "x"\n' + ACCESS, "http.tls.ca", "client_ca"),
        (TLS + 'crt = "x"\n' + ACCESS, "http.tls.crt", "did you mean cert?"),
        (TLS + ACCESS + 'rol = "x"', "http.access.me.rol", "did you mean role?"),
        (TLS + ACCESS + 'token = "secret"', "http.access.me.token", "unitctl new-token"),
        (TLS + ACCESS + 'certificate = "a"', "http.access.me.certificate", "write client_ca in [http.tls]"),
        (TLS + ACCESS.replace("admin", "root"), "http.access.me.role", "must be one of"),
        (TLS + ACCESS.replace('role = "admin"\n', ""), "http.access.me.role", "missing: one of read"),
        (TLS + '[http.access.me]\nrole = "read"', "http.access.me", "nobody can use this entry"),
        (TLS + ACCESS.replace(HASH, HASH[1:]), "http.access.me.token_sha256", "unitctl new-token"),
        (TLS + ACCESS.replace(f'"{HASH}"', "[]"), "http.access.me.token_sha256", "must not be empty"),
        (TLS + ACCESS + ACCESS.replace("me", "you"), "http.access.you.token_sha256", "me has the same one"),
        (TLS + ACCESS.replace("me]", '"a b"]'), "http.access.'a b'", "a name of 1 to 64"),
        (TLS + ACCESS.replace("[http.access.me]", "[http.access]"), "http.access.role", "must be a table"),
    ],
)
def test_a_mistake_is_told_at_its_key_with_what_to_write(text: str, key: str, words: str) -> None:
    found = [each for each in errors(LISTEN + text) if each.key == key]
    assert found and found[0].line
    assert words in found[0].reason


def test_a_token_that_was_written_instead_of_its_hash_is_not_repeated() -> None:
    found = error(LISTEN + TLS + ACCESS.replace(HASH, "very-secret"))
    assert "very-secret" not in str(found)


def test_two_entries_cannot_share_a_certificate() -> None:
    tls = TLS + 'client_ca = "ca.pem"\n'
    entries = "".join(f'[http.access.{name}]\nrole = "read"\ncertificate = "a.example"\n' for name in "ab")
    assert error(LISTEN + tls + entries).key == "http.access.b.certificate"


@pytest.mark.parametrize("more", [TLS, ACCESS])
def test_who_may_use_it_means_nothing_without_where_to_listen(more: str) -> None:
    assert error(more).key == "http.listen"


def test_another_program_can_have_a_place_of_its_own_to_listen_on() -> None:
    problems = Problems()
    spec = read_http(Document("/etc/c.toml", ACCESS.encode()), problems, default_listen=("127.0.0.1", 9300))
    assert spec is not None and spec.listen == ("127.0.0.1", 9300)
    assert not problems.errors


def test_a_port_that_unitd_has_everywhere_is_no_units() -> None:
    text = '[http]\nlisten = "0.0.0.0:9301"\n' + TLS + ACCESS
    found = error(text + '[unit.a]\ncommand = "x"\nservice = { port = 9301, address = "10.0.0.7" }')
    assert (found.key, "[http] listen" in found.reason) == ("unit.a.service.port", True)


def test_only_a_daemon_that_encrypts_needs_the_library() -> None:
    assert not may_need_ssl(loaded('[http]\nlisten = "127.0.0.1:9301"\n' + ACCESS).daemon)
    assert may_need_ssl(loaded(LISTEN + TLS + ACCESS).daemon)


def test_the_audit_log_is_beside_the_rest_that_survives_unless_said_otherwise() -> None:
    assert loaded("[daemon]\nstate_dir = '/s'").daemon.audit_log == "/s/audit.jsonl"
    assert loaded("[daemon]\naudit_log = 'a.log'").daemon.audit_log == "/etc/unitd/a.log"
    assert loaded("[daemon]\naudit_log = ''").daemon.audit_log is None


def test_the_examples_of_the_how_to_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "secure.md").read_text()
    first, second = re.findall(r"```toml\n(.*?)```", dedent_blocks(page), re.DOTALL)
    assert http(first).principals[0].token_sha256
    assert http('[http]\nlisten = "10.0.0.7:9301"\n' + second).principals[0].certificates


def dedent_blocks(page: str) -> str:
    """Code in lists stands further in."""
    return "\n".join(line.removeprefix("   ") for line in page.splitlines())
