"""Words to the service manager that runs the daemon (sd_notify(3)). Without one, nothing happens."""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import Sequence


def tell_manager(message: str, descriptors: Sequence[int] = ()) -> bool:
    """Send `READY=1`, `STOPPING=1`, `STATUS=...` to $NOTIFY_SOCKET, with copies of open files along; never waits.

    False: it was not taken; nobody is there, or it has to be said again.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as channel:
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
            channel.sendmsg([message.encode()], rights, 0, address)
        except OSError:
            return False  # the manager has gone or does not read; the daemon goes on
    return True
