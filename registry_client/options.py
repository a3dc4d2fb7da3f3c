"""What backends on other hosts are told besides their url: how TLS is spoken, and secrets. Nothing here connects.

`ssl` is imported by the first context that is made, not by this module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import BadOption

if TYPE_CHECKING:
    from ssl import SSLContext

_MAX_SECRET_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Tls:
    """How a TLS server is spoken to. Paths are of PEM files."""

    verify: bool = True  # its certificate must be trusted, valid today, and for the name that is asked for
    ca: str | None = None  # whom to trust; None: whom the system trusts
    cert: str | None = None  # our own certificate, for servers that want one
    key: str | None = None  # its key, unencrypted; None: it is in the same file
    server_name: str | None = None  # the name that is asked for; None: the one in the url

    def context(self, backend: str) -> SSLContext:
        """A new context, so that files which were renewed since are read. Raises BadOption (naming `backend`)."""
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.verify
        context.verify_mode = ssl.CERT_REQUIRED if self.verify else ssl.CERT_NONE
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            elif self.verify:
                context.set_default_verify_paths()
        except OSError as error:  # ssl.SSLError is one
            raise BadOption(backend, "ca", f"cannot use {self.ca}: {_reason(error)}") from error
        if self.cert is not None:
            try:  # a password, although none can be right: without one OpenSSL would ask the terminal
                context.load_cert_chain(self.cert, self.key, password="")
            except (OSError, ValueError) as error:
                files = self.cert if self.key is None else f"{self.cert} with the key {self.key}"
                raise BadOption(backend, "cert", f"cannot use {files}: {_reason(error)}") from error
        return context


class Secret:
    """A token or a password: a value, or a file whose content (without white space around it) is read at each use.

    Never shows in a message, a log or a repr.
    """

    __slots__ = ("_path", "_value")

    def __init__(self, value: str | None = None, *, path: str | None = None) -> None:
        if (value is None) == (path is None):
            raise ValueError("cannot make a secret: give either its value or its path")
        self._value, self._path = value, path

    @classmethod
    def of(cls, value: str | Secret | None) -> Secret | None:
        """The secret that an option holds, which may be a plain string."""
        return cls(value) if isinstance(value, str) else value

    def read(self) -> str:
        """The secret. Raises OSError (its file cannot be read), ValueError (it holds nothing of use)."""
        if self._path is None:
            return str(self._value)
        with open(self._path, "rb") as file:
            text = file.read(_MAX_SECRET_BYTES + 1).decode().strip()
        if not text or len(text) > _MAX_SECRET_BYTES or not text.isprintable():
            raise ValueError(f"{self._path} holds no secret on one line")
        return text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._value, self._path) == (other._value, other._path)

    def __hash__(self) -> int:
        return hash((self._value, self._path))

    def __repr__(self) -> str:
        return "Secret(***)" if self._path is None else f"Secret(path={os.fspath(self._path)!r})"


def _reason(error: Exception) -> str:
    return (getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)).replace("_", " ").lower()
