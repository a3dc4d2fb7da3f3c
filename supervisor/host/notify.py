"""Words to the service manager that runs the daemon (sd_notify(3)). Without one, nothing happens."""

from __future__ import annotations

import os
import socket


def tell_manager(message: str) -> None:
    """Send `READY=1`, `STOPPING=1` or `STATUS=...` to $NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as channel:
        try:
            channel.sendto(message.encode(), address)
        except OSError:
            return  # the manager has gone or does not read; the daemon goes on
