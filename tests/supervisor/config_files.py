"""Configuration files in memory, and short ways to load them."""

from __future__ import annotations

import re

from supervisor.config import check, load
from supervisor.core.model import Config, UnitSpec
from supervisor.errors import ConfigError

MAIN = "/etc/unitd/unitd.toml"


class Files:
    """Files in memory, below /etc/unitd."""

    def __init__(self, **files: str | bytes) -> None:
        self.files = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}

    def __setitem__(self, path: str, data: str | bytes) -> None:
        self.files[path] = data.encode() if isinstance(data, str) else data

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.files[path]

    def find(self, folder: str, pattern: str) -> list[str]:
        pattern = re.escape(f"{folder}/{pattern}").replace(r"\*", "[^/]*")
        return sorted(path for path in self.files if re.fullmatch(pattern, path))


def loaded(text: str, **more: str | bytes) -> Config:
    files = Files(**{MAIN: text, **more})
    return load(MAIN, read=files.read, find=files.find, node="here")


def errors(text: str | bytes, **more: str | bytes) -> list[ConfigError]:
    files = Files(**{MAIN: text, **more})
    return check(MAIN, read=files.read, find=files.find, node="here")


def error(text: str | bytes, **more: str | bytes) -> ConfigError:
    (found,) = errors(text, **more)
    return found


def unit(text: str, name: str = "a") -> UnitSpec:
    """The unit of `[unit.a]` with a command and these lines."""
    return loaded(f'[unit.a]\ncommand = "x"\n{text}').units[name]


def unit_error(text: str) -> ConfigError:
    return error(f'[unit.a]\ncommand = "x"\n{text}')
