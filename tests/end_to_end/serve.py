"""A unit for scenarios: answers every HTTP request on a port with its pid and generation, and notes what happens to it.

Arguments: port [file for notes] [seconds that it takes to begin] [seconds that it takes to end].
"""

import os
import signal
import socket
import sys
import time

port = int(sys.argv[1])
notes = sys.argv[2] if len(sys.argv) > 2 else os.devnull
begins_in = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
ends_in = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0


def note(what: str) -> None:
    """One line: what, when (CLOCK_BOOTTIME), the process and its generation."""
    with open(notes, "a") as file:
        file.write(f"{what} {time.clock_gettime(time.CLOCK_BOOTTIME)} {os.getpid()} {os.environ['UNITD_GENERATION']}\n")


def end(*_: object) -> None:
    """Note the signal, take the time that it takes, and end."""
    note("term")
    time.sleep(ends_in)
    sys.exit(0)


note("begin")
signal.signal(signal.SIGTERM, end)
time.sleep(begins_in)
listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", port))
listening.listen(64)
body = f"{os.getpid()} {os.environ['UNITD_GENERATION']}\n".encode()
answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
while True:
    connection, _ = listening.accept()
    with connection:
        try:
            if connection.recv(65536):
                connection.sendall(answer)
        except OSError:
            continue
