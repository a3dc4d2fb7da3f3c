"""A service manager for tests: takes what is said to it, descriptors included."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path


class Manager:
    """The socket that $NOTIFY_SOCKET names, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "manager")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(10)

    def read(self) -> tuple[list[str], list[int]]:
        """The next message's lines, and the descriptors that came along; they are the caller's."""
        data, descriptors, _, _ = socket.recv_fds(self._socket, 8192, 4)
        return data.decode().split("\n"), list(descriptors)

    def read_all(self) -> list[list[str]]:
        """The lines of all messages that are there by now."""
        self._socket.setblocking(False)
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                lines, descriptors = self.read()
                for descriptor in descriptors:
                    os.close(descriptor)
                found.append(lines)
        self._socket.settimeout(10)
        return found

    def close(self) -> None:
        """Nobody is there any more."""
        self._socket.close()
