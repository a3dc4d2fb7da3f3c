"""A certificate authority of the tests: one for the servers, one certificate for clients, in files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


@dataclass(frozen=True)
class Certificates:
    """PEM files. The server's certificate is for 127.0.0.1 and localhost; the client's common name is `client`."""

    ca: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path

    def client_context(self) -> ssl.SSLContext:
        """The context of a client that trusts the authority and shows its own certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.client_certificate, self.client_key)
        return context


def write_certificates(folder: Path) -> Certificates:
    """Make an authority and its two certificates and write them into `folder`, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    made = Certificates(
        folder / "ca.pem", folder / "server.pem", folder / "server.key", folder / "client.pem", folder / "client.key"
    )
    authority.cert_pem.write_to_path(str(made.ca))
    server = authority.issue_cert("127.0.0.1", "localhost")
    client = authority.issue_cert("client@localhost", common_name="client")
    for issued, certificate, key in (
        (server, made.server_certificate, made.server_key),
        (client, made.client_certificate, made.client_key),
    ):
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        key.write_bytes(_pkcs8(issued.private_key_pem.bytes()))
        key.chmod(0o600)
    return made


def _pkcs8(pem: bytes) -> bytes:
    """The same key in the one format that Java reads too."""
    return load_pem_private_key(pem, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
