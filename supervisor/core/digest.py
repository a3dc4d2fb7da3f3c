"""SHA-256 without OpenSSL where Python has its own: a daemon that encrypts nothing need not map that library."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def _find() -> Any:
    for module in ("_sha2", "_sha256", "hashlib"):  # since Python 3.12, before it, and where it was built without
        try:
            return import_module(module).sha256
        except (ImportError, AttributeError):
            continue
    raise ImportError("this Python has no SHA-256")


_SHA256 = _find()


def sha256_hex(data: bytes) -> str:
    """64 hexadecimal digits."""
    return str(_SHA256(data).hexdigest())
