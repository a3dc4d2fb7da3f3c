"""Configuration files -> specs: `load` gives a whole valid configuration, or every mistake with file, line and key."""

from __future__ import annotations

from .loader import ConfigErrors, check, find_files, load, read_file

__all__ = ["ConfigErrors", "check", "find_files", "load", "read_file"]
