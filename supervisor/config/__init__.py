"""Configuration files -> specs: `load` gives a whole valid configuration, or every mistake with file, line and key."""

from __future__ import annotations

from .loader import ConfigErrors, check, find_files, load, read_file
from .registries import may_need_ssl, registry_error

__all__ = ["ConfigErrors", "check", "find_files", "load", "may_need_ssl", "read_file", "registry_error"]
