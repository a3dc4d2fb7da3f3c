"""Standard output and standard error: who reads them, and what happens when nobody does."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Mapping
from typing import IO


class ReaderGone(Exception):
    """Nobody reads our output any more (`| head`): there is no reason to go on."""


def _prepare(stream: IO[str] | None) -> None:
    """Never fail over a character that the terminal's encoding lacks."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


class Terminal:
    """Prints; results whole and at once. `out` keeps silent once the reader has gone, `out_bytes` raises ReaderGone."""

    def __init__(self) -> None:
        self._gone = sys.stdout is None  # closed by the caller: `>&-`
        _prepare(sys.stdout)
        _prepare(sys.stderr)

    @property
    def is_interactive(self) -> bool:
        """Whether a person looks at our standard output."""
        return not self._gone and sys.stdout.isatty()

    @property
    def width(self) -> int:
        """Columns of the terminal behind standard error; 0: it is none, or one that cannot rewrite a line."""
        if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            return 0
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80

    def wants_color(self, environment: Mapping[str, str]) -> bool:
        """Whether colours make sense on standard output (https://no-color.org)."""
        return self.is_interactive and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"

    @property
    def takes_unicode(self) -> bool:
        """Whether standard output can carry any character."""
        return not self._gone and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"

    def out(self, text: str) -> None:
        """Print a result. Raises OSError when it cannot be written, for instance to a full disk."""
        if self._gone or not text:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            self._silence()
        except OSError:
            self._silence()
            raise

    def out_bytes(self, data: bytes) -> None:
        """Print a part of a stream as it is."""
        if not self._gone:
            try:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                self._silence()
        if self._gone:
            raise ReaderGone

    def reader_gone(self) -> bool:
        """Whether the pipe behind standard output has lost its reader."""
        if self._gone:
            return True
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors are reported without being asked for
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))

    def err(self, text: str) -> None:
        """Print a line on standard error, if anybody takes it."""
        self.raw_err(f"{text}\n")

    def raw_err(self, text: str) -> None:
        """Print on standard error as it is."""
        if sys.stderr is None:
            return
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            pass

    def _silence(self) -> None:
        """Let the interpreter's flush at its end go nowhere."""
        self._gone = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
