"""A unit for scenarios: takes every request on a port and answers none, until whoever asked hangs up."""

import socket
import sys
import threading


def hold(connection: socket.socket) -> None:
    """Read until the other side is done."""
    with connection:
        while connection.recv(65536):
            pass


listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", int(sys.argv[1])))
listening.listen(64)
while True:
    threading.Thread(target=hold, args=(listening.accept()[0],), daemon=True).start()
