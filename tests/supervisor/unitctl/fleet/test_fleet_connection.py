"""How `unitctl fleet` reaches the center: address, token, certificates, and what it says when it cannot."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.servers.certificates import Certificates, write_certificates

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return write_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secured(center: Any, fleet: Any, certificates: Certificates) -> Any:
    """The center with TLS, which asks for a client certificate of its authority."""
    center.stop()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates.ca))
    context.load_cert_chain(certificates.server_certificate, certificates.server_key)
    center.tls = context
    center.start()
    fleet.environment["UNITCTL_CENTER"] = center.url
    return center


def token_file(folder: Path, text: str = f"{TOKEN}\n", mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


# Who we are.


def test_a_token_comes_from_a_file_that_an_option_or_a_variable_names(center: Any, fleet: Any, tmp_path: Path) -> None:
    center.token = TOKEN
    path = str(token_file(tmp_path))
    assert fleet("fleet", "--token-file", path, "mode").returncode == 0
    assert fleet("fleet", "mode", "--token-file", path).returncode == 0
    fleet.environment["UNITCTL_CENTER_TOKEN_FILE"] = path
    assert fleet("fleet", "mode").returncode == 0


def test_without_a_token_or_with_a_wrong_one_it_is_4_and_says_what_to_do(
    center: Any, fleet: Any, tmp_path: Path
) -> None:
    center.token = TOKEN
    done = fleet("fleet", "mode")
    assert done.returncode == 4 and "give a token with --token-file" in done.stderr
    done = fleet("fleet", "mode", "--token-file", str(token_file(tmp_path, "other")))
    assert done.returncode == 4 and "it does not accept our token" in done.stderr
    assert "other" not in done.stderr


def test_a_token_that_others_can_read_is_used_with_a_warning(center: Any, fleet: Any, tmp_path: Path) -> None:
    path = token_file(tmp_path, mode=0o644)
    done = fleet("fleet", "mode", "--token-file", str(path))
    assert done.returncode == 0
    assert done.stderr == f"unitctl: warning: {path} can be read by others: chmod 600 {path}\n"
    assert fleet("fleet", "mode", "--token-file", str(token_file(tmp_path, mode=0o640))).stderr == ""


@pytest.mark.parametrize("text", ["", "\n", "two words", "two\nlines", "é"])
def test_a_file_that_holds_no_token_is_2(center: Any, fleet: Any, tmp_path: Path, text: str) -> None:
    done = fleet("fleet", "mode", "--token-file", str(token_file(tmp_path, text)))
    assert done.returncode == 2 and "it must hold one token and nothing else" in done.stderr
    assert center.requests == []


def test_a_file_that_is_not_there_is_2(center: Any, fleet: Any, tmp_path: Path) -> None:
    for option in ("--token-file", "--ca", "--cert"):
        done = fleet("fleet", "mode", option, str(tmp_path / "none"))
        assert done.returncode == 2 and "none: No such file or directory" in done.stderr


def test_a_token_that_would_travel_in_the_open_is_warned_of(fleet: Any, tmp_path: Path) -> None:
    done = fleet("fleet", "mode", "--center", "http://no-such-host.invalid", "--token-file", str(token_file(tmp_path)))
    assert "warning: the token goes to http://no-such-host.invalid:9300 unencrypted: use https" in done.stderr
    assert done.returncode == 69


def test_neither_a_proxy_nor_a_netrc_file_gets_between(
    center: Any, fleet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    center.token = TOKEN
    (tmp_path / ".netrc").write_text("default login eve password x\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert fleet("fleet", "mode", "--token-file", str(token_file(tmp_path))).returncode == 0


# TLS.


def test_the_center_is_trusted_by_its_authority_only(secured: Any, fleet: Any, certificates: Certificates) -> None:
    assert fleet("fleet", "mode", "--ca", str(certificates.ca)).stdout == "assist\n"
    done = fleet("fleet", "mode")
    assert done.returncode == 69
    assert "its certificate is not accepted" in done.stderr and "--ca" in done.stderr


def test_a_certificate_of_ours_is_shown(secured: Any, fleet: Any, certificates: Certificates) -> None:
    secured.stop()
    secured.tls.verify_mode = ssl.CERT_REQUIRED
    secured.start()
    fleet.environment["UNITCTL_CENTER"] = secured.url
    ours = ("--cert", str(certificates.client_certificate), "--key", str(certificates.client_key))
    assert fleet("fleet", "mode", "--ca", str(certificates.ca), *ours).stdout == "assist\n"
    assert fleet("fleet", "mode", "--ca", str(certificates.ca)).returncode == 69
    done = fleet("fleet", "mode", "--ca", str(certificates.ca), *ours[2:])
    assert done.returncode == 2 and "give it with --cert" in done.stderr


def test_a_file_that_is_no_certificate_is_2(
    secured: Any, fleet: Any, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "junk").write_text("junk")
    for option in ("--ca", "--cert"):
        done = fleet("fleet", "mode", "--ca", str(certificates.ca), option, str(tmp_path / "junk"))
        assert done.returncode == 2 and "cannot use" in done.stderr, done.stderr


def test_while_waiting_a_certificate_that_is_no_longer_trusted_ends_it(
    secured: Any, fleet: Any, certificates: Certificates, tmp_path: Path
) -> None:
    secured.add("web-1/cart:0")
    secured.hold()
    process = fleet.begin("fleet", "--ca", str(certificates.ca), "restart", "cart", "--no-color")
    secured.wait_for("GET", "/v1/operations/fo-1")
    other = write_certificates(tmp_path / "other")
    secured.stop()
    secured.tls.load_cert_chain(other.server_certificate, other.server_key)
    secured.start()
    _, err = process.communicate(timeout=15)
    assert process.returncode == 69 and "its certificate is not accepted" in err


# What is wrong.


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_nobody_listens(fleet: Any) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = fleet("fleet", "--center", url, "nodes")
    assert done.returncode == 69
    assert (
        done.stderr
        == f"unitctl: cannot reach the control center at {url}: Connection refused: does it run there? See --center\n"
    )
    assert fleet("fleet", "--center", url, "restart", "cart").returncode == 69


def test_somebody_listens_and_says_nothing(fleet: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        done = fleet("fleet", "--center", f"http://127.0.0.1:{silent.getsockname()[1]}", "nodes", "--timeout", "300ms")
    assert done.returncode == 69 and "no answer within 0.3 s" in done.stderr


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_somebody_else_listens(fleet: Any, answer: bytes) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def serve() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        done = fleet("fleet", "--center", f"http://127.0.0.1:{other.getsockname()[1]}", "nodes")
        thread.join(10)
    assert (done.returncode, done.stdout) == (69, "")
    assert "cannot reach the control center" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_proxy_before_a_center_that_is_away_is_waited_out(cart: Any, fleet: Any) -> None:
    cart.hold()
    process = fleet.begin("fleet", "restart", "cart")
    cart.wait_for("GET", "/v1/operations/fo-1")
    cart.routes["GET", "/v1/operations/fo-1"] = lambda _: (502, "bad gateway")
    cart.change("fo-1")
    assert "HTTP status 502" in process.stderr.readline()
    del cart.routes["GET", "/v1/operations/fo-1"]
    cart.finish("fo-1")
    out, _ = process.communicate(timeout=15)
    assert process.returncode == 0 and "succeeded" in out


@pytest.mark.parametrize(
    "url", ["center:9300", "ftp://center", "https://", "https://center/path", "https://eve:secret@center", "https://c:99999"]
)  # fmt: skip
def test_a_wrong_url_is_2(fleet: Any, url: str) -> None:
    done = fleet("fleet", "--center", url, "nodes")
    assert done.returncode == 2 and "cannot tell where the control center is" in done.stderr
    assert "secret" not in done.stderr


def test_names_reach_the_center_whatever_they_hold(center: Any, fleet: Any) -> None:
    center.add("web-1/ü b:0", "a/b?c#d%41")
    assert "a/b?c#d%41" in fleet("fleet", "status", "a*").stdout
    assert fleet("fleet", "thaw", "a/b?c#d%41").returncode == 0
    assert fleet("fleet", "clear", "web-1/ü b:0").stdout == "web-1/ü b:0: its restarts are forgotten\n"


def test_the_reader_of_followed_events_may_go(cart: Any, fleet: Any) -> None:
    ours, theirs = os.pipe()
    process = fleet.begin("fleet", "events", "-f", stdout=theirs)
    os.close(theirs)
    cart.wait_for("GET", "/v1/events", 2)
    os.close(ours)
    cart.happen("mode", mode="full")
    process.communicate(timeout=15)
    assert process.returncode == 0
