"""The table [center]: where a host fetches its commands, and [http] advertise: where others are told to connect."""

from __future__ import annotations

import pytest

from supervisor.core.model import CenterSpec, TlsSpec
from tests.supervisor.config_files import MAIN, errors, loaded


def test_without_the_table_nothing_is_fetched() -> None:
    assert loaded("").daemon.center is None


def test_a_url_is_enough() -> None:
    assert loaded('center.url = "https://center:9300"').daemon.center == CenterSpec(("https://center:9300",))


def test_everything_is_read_and_paths_begin_at_the_file() -> None:
    text = """
    [center]
    url = ["https://a.example/center/", "https://[2001:db8::1]:9300"]
    token_file = "token"
    pull = false
    tls = { ca = "ca.pem", cert = "/x.pem", key = "x.key", server_name = "center" }
    """
    tls = TlsSpec(True, "/etc/unitd/ca.pem", "/x.pem", "/etc/unitd/x.key", "center")
    urls = ("https://a.example/center", "https://[2001:db8::1]:9300")
    assert loaded(text).daemon.center == CenterSpec(urls, False, "/etc/unitd/token", tls)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9300", "http://localhost:9300", "http://[::1]:9300"])
def test_on_this_host_no_tls_is_needed(url: str) -> None:
    assert loaded(f'center.url = "{url}"').daemon.center == CenterSpec((url,))


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[center]", "center.url", "missing"),
        ('center.url = "http://10.0.0.1:9300"', "center.url", "must begin with https"),
        ('center.url = "http://127.0.0.1.example:9300"', "center.url", "must begin with https"),
        ('center.url = "center:9300"', "center.url", "must be a URL"),
        ('center.url = "https://u:p@center"', "center.url", "must be a URL"),
        ('center.url = "https://center/?a=b"', "center.url", "must be a URL"),
        ('center.url = "https://center:99999"', "center.url", "must be a URL"),
        ("center.url = []", "center.url", "must not be empty"),
        ('center.url = "https://c"\ncenter.token = "x"', "center.token", "write token_file"),
        ('center.url = "https://c"\ncenter.tokenfile = "x"', "center.tokenfile", "did you mean token_file"),
        ('center.url = "http://[::1]"\ncenter.tls.ca = "x"', "center.tls", "means nothing"),
        ('center.url = "https://c"\ncenter.tls.key = "x"', "center.tls.key", "means nothing without cert"),
        ('center.url = "https://c"\ncenter.tls.client_ca = "x"', "center.tls.client_ca", "unknown key"),
        ("center = 3", "center", "must be a table"),
    ],
)
def test_a_mistake_is_named_with_its_key(text: str, key: str, words: str) -> None:
    found = errors(text)
    assert any(error.key.startswith(key) and words in error.reason and error.path == MAIN for error in found), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node-7.example:9301", ("node-7.example", 9301)),
        ("10.0.0.7:443", ("10.0.0.7", 443)),
        ("[2001:db8::7]:9301", ("2001:db8::7", 9301)),
    ],
)
def test_another_address_can_be_advertised(text: str, expected: tuple[str, int]) -> None:
    http = loaded(f'http = {{ listen = "127.0.0.1:9301", advertise = "{text}" }}').daemon.http
    assert http is not None and http.advertise == expected


@pytest.mark.parametrize(
    "text", ["node", "node:0", "node:65536", "2001:db8::7:9301", "0.0.0.0:9301", "[::]:9301", ":1", ""]
)
def test_what_nobody_can_connect_to_is_not_advertised(text: str) -> None:
    (error,) = errors(f'http = {{ listen = "127.0.0.1:9301", advertise = "{text}" }}')
    assert error.key == "http.advertise"
