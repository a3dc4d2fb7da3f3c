"""A daemon whose API is open to others: certificates, tokens, and clients that have them or not."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from tests.end_to_end.host import Answer, Host

SLEEP = "/bin/sleep 1000"
TOKENS = {
    name: f"token-of-{name}" for name in ("admin", "operator", "reader", "node", "reporter", "cart-only", "web-nodes")
}
ENTRIES = {
    "admin": 'role = "admin"',
    "operator": 'role = "operate"',
    "reader": 'role = "read"',
    "node": 'role = "node"',
    "reporter": 'role = "report"',
    "cart-only": 'role = "operate", services = ["cart*"]',
    "web-nodes": 'role = "node", nodes = ["web-*"]',
}


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Authority:
    """Certificates in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))

    def write(self, name: str, *identities: str, **how: Any) -> Path:
        """A certificate with its chain and its key in one file, put in place at once."""
        issued = self.ca.issue_cert(*identities, **how)
        new = self.folder / f"{name}.new"
        issued.private_key_and_cert_chain_pem.write_to_path(str(new))
        return new.rename(self.folder / f"{name}.pem")

    def expired(self, name: str, *identities: str) -> Path:
        """One whose time was over yesterday."""
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        return self.write(name, *identities, not_before=yesterday - datetime.timedelta(days=9), not_after=yesterday)


@dataclass
class Client:
    """Asks over TLS, with what it was given."""

    port: int
    context: ssl.SSLContext | None
    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def connection(self) -> http.client.HTTPConnection:
        if self.context is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.context)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = self.connection()
        shown = {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {**shown, **self.headers, **headers})
            response = connection.getresponse()
            if response.headers.get_content_type() == "text/event-stream":
                return Answer(response.status, b"")
            answer = Answer(response.status, response.read())
            answer.headers = response.headers  # type: ignore[attr-defined]
            return answer
        finally:
            connection.close()


class Secure:
    """The daemon and what its clients need."""

    def __init__(self, host: Host, units: str = "", **daemon: object) -> None:
        self.host = host
        self.authority = Authority(host.folder / "tls")
        self.certificate = self.authority.write("node", "127.0.0.1", "localhost")
        self.port = host.port()
        lines = [
            f'http.tls = {{ cert = "{self.certificate}", client_ca = "{self.authority.ca_file}" }}',
            *(
                f'http.access.{name} = {{ {entry}, token_sha256 = "{token_hash(TOKENS[name])}" }}'
                for name, entry in ENTRIES.items()
            ),
            'http.access.center = { role = "admin", certificate = ["center.example", "spiffe://example/center"] }',
        ]
        host.configure("\n".join([*lines, units]), http=f"127.0.0.1:{self.port}", **daemon)

    def context(self, certificate: Path | None = None, authority: Authority | None = None) -> ssl.SSLContext:
        """A client's, that trusts the authority and shows that certificate."""
        context = ssl.create_default_context(cafile=str((authority or self.authority).ca_file))
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def client(self, name: str | None = None, **how: Any) -> Client:
        """With the token of that entry."""
        return Client(self.port, how.pop("context", None) or self.context(), TOKENS[name] if name else None, **how)

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log."""
        return [json.loads(line) for line in (self.host.folder / "state" / "audit.jsonl").read_text().splitlines()]
