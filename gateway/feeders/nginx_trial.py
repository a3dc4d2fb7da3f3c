"""Tests upstreams with nginx itself before they are put in the place where it finds them.

The file that nginx includes is never wrong, not even while it is tested: nginx may be started, or reloaded by somebody
else, at any moment. So `nginx -t` gets a copy of the main configuration file that includes the candidate in the place
of the file; and where an included file includes it, a copy of that one, too. The copies stand beside the main file, for
paths in it are relative to its folder, under names that a pattern such as `*.conf` does not match.
"""

from __future__ import annotations

import asyncio
import fnmatch
import glob
import os
import re
from collections.abc import Iterator
from contextlib import suppress

from ..errors import GatewayRefused
from ..settings.nginx import NginxSpec
from .nginx_processes import run

_MOST_FILES = 2000  # of one configuration
_TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[;{}]|(?:\\.|\$\{[^}]*\}|[^\s;{}])+""", re.DOTALL)


class Trial:
    """The candidate, and how it becomes the file."""

    def __init__(self, spec: NginxSpec) -> None:
        self._spec = spec
        self.file = os.path.realpath(spec.file)
        folder, name = os.path.split(self.file)
        self._candidate = os.path.join(folder, f".{name}.candidate")

    async def test(self, text: str) -> None:
        """Raises GatewayRefused, with nginx's words, when nginx would not start with this in the file."""
        try:
            main, copies = await asyncio.to_thread(self._prepare, text)
        except (OSError, RecursionError) as error:
            raise GatewayRefused(f"cannot test the upstreams with nginx: {error}") from error
        try:
            await self._run(main, copies)
        finally:
            await asyncio.to_thread(_remove, copies)

    async def test_live(self) -> None:
        """The same, for the files as they are."""
        await self._run(self._spec.conf, {})

    def swap(self, text: str) -> None:
        """Put a text in the place of the file, at once and for good. Raises OSError."""
        _write(self._candidate, text, 0o644)
        os.replace(self._candidate, self.file)
        folder = os.open(os.path.dirname(self.file), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def _run(self, main: str, copies: dict[str, str]) -> None:
        code, said = await run((*self._spec.nginx, "-t", "-q", "-c", main), self._spec.reload_seconds)
        if code == 0:
            return
        for copy, original in {**copies, self._candidate: self.file}.items():
            said = said.replace(copy, original)
        raise GatewayRefused(f"cannot change nginx's upstreams: nginx -t says: {'; '.join(said.splitlines())}")

    def _prepare(self, text: str) -> tuple[str, dict[str, str]]:
        """The main file's copy, and all copies with what they are copies of."""
        _write(self._candidate, text, 0o644)
        tree = _Tree(self._spec.conf, self.file, self._candidate, f".unit-gateway-{self._spec.name}")
        main = tree.copy(os.path.abspath(self._spec.conf))
        if main is None:
            _remove(tree.copies)
            raise GatewayRefused(f"cannot feed nginx: {self._spec.conf} does not include {self._spec.file}")
        return main, tree.copies


class _Tree:
    """nginx's configuration files, from the main one on, and the copies of those that lead to one of them."""

    def __init__(self, main: str, file: str, candidate: str, prefix: str) -> None:
        self._folder = os.path.dirname(os.path.abspath(main))
        self._file, self._candidate, self._prefix = file, candidate, prefix
        self._known: dict[str, str | None] = {}
        self.copies: dict[str, str] = {}

    def copy(self, path: str) -> str | None:
        """What stands for this file in the test; None: it may stand for itself."""
        path = os.path.realpath(path)
        if path == self._file:
            return self._candidate
        if path not in self._known:
            if len(self._known) >= _MOST_FILES:
                raise OSError(f"its configuration has more than {_MOST_FILES} files")
            self._known[path] = None  # an include that leads back to itself is for nginx to complain about
            self._known[path] = self._copied(path)
        return self._known[path]

    def _copied(self, path: str) -> str | None:
        try:
            with open(path, errors="surrogateescape", newline="") as file:
                text = file.read()
        except FileNotFoundError:
            return None
        parts, end, changed = [], 0, False
        for start, stop, pattern in _includes(text):
            paths = self._paths(pattern)
            stand_ins = [self.copy(each) or each for each in paths]
            if stand_ins != paths:
                changed = True
                parts += [text[end:start], " ".join(f'include "{each}";' for each in stand_ins)]
                end = stop
        return self._write(path, "".join(parts) + text[end:]) if changed else None

    def _paths(self, pattern: str) -> list[str]:
        """What an include means, the file included even before it is there."""
        full = os.path.join(self._folder, pattern)
        if not glob.has_magic(full):
            return [full]
        paths = glob.glob(full)
        if not os.path.exists(self._file) and fnmatch.fnmatch(self._file, full):
            paths.append(self._file)
        return sorted(paths)

    def _write(self, original: str, text: str) -> str:
        path = os.path.join(self._folder, f"{self._prefix}-{len(self.copies)}.conf")
        self.copies[path] = original
        _write(path, text, 0o600)
        return path


def _includes(text: str) -> Iterator[tuple[int, int, str]]:
    """Where each include stands, semicolon and all, and what it includes."""
    begun: list[re.Match[str]] = []
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word.startswith("#"):
            continue
        if word in ("{", "}", ";"):
            if word == ";" and len(begun) == 2 and begun[0][0] == "include":
                yield begun[0].start(), token.end(), _unquoted(begun[1][0])
            begun = []
        else:
            begun.append(token)


def _unquoted(word: str) -> str:
    inner = word[1:-1] if word[0] in "\"'" and word[-1] == word[0] else word
    return re.sub(r"\\(.)", r"\1", inner)


def _write(path: str, text: str, mode: int) -> None:
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", errors="surrogateescape", newline=""
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _remove(paths: dict[str, str]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
