"""From a registry's part of the configuration to the backend that speaks to it."""

from __future__ import annotations

from typing import Any

from registry_client.backend import Backend
from registry_client.backends.embedded import EmbeddedBackend, EmbeddedRegistry
from registry_client.client import open_backend
from registry_client.errors import BadOption, Unsupported
from registry_client.options import Secret, Tls

from .config import registry_error
from .core.model import RegistrySpec

CALL_SHARE = 1 / 6  # of the ttl, for one call: so that after a lost one the next renewal still fits


def open_registry(path: str, spec: RegistrySpec, ttl_seconds: float, embedded: EmbeddedRegistry | None) -> Backend:
    """The backend of a registry; nothing is connected yet. `embedded` is the registry in this process.

    Raises ConfigError with the line of the main file at `path` that its backend cannot use.
    """
    timeout = spec.timeout_seconds or ttl_seconds * CALL_SHARE
    try:
        if spec.backend == "embedded":
            return EmbeddedBackend(embedded, timeout_seconds=timeout)
        return open_backend(spec.backend, timeout_seconds=timeout, **_options(spec))
    except BadOption as error:
        raise registry_error(path, spec.name, error.option, error.reason) from error
    except Unsupported as error:
        raise registry_error(path, spec.name, "backend", str(error)) from error


def _options(spec: RegistrySpec) -> dict[str, Any]:
    tls = spec.tls
    return {
        "url": spec.url,
        "prefix": spec.prefix,
        "user": spec.user,
        "password": Secret(path=spec.password_file) if spec.password_file else None,
        "token": Secret(path=spec.token_file) if spec.token_file else None,
        "tls": Tls(tls.verify, tls.ca, tls.cert, tls.key, tls.server_name) if tls is not None else None,
        **dict(spec.options),
    }
