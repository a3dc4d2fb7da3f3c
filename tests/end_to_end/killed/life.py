"""A unit that proves whether it is alone: it holds a lock for its life, and notes a life that begins beside another.

Arguments: port, file for notes, file to lock. A note is one line: what, when (CLOCK_BOOTTIME), pid, generation.
"""

import fcntl
import os
import signal
import socket
import sys
import time

port, notes, lock = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def note(what: str) -> None:
    """One line, written whole."""
    line = f"{what} {time.clock_gettime(time.CLOCK_BOOTTIME)} {os.getpid()} {os.environ['UNITD_GENERATION']}\n"
    descriptor = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def end(*_: object) -> None:
    """Note the signal, and end."""
    note("term")
    os._exit(0)


signal.signal(signal.SIGTERM, end)
held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
try:
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    note("twice")
    sys.exit(1)
note("begin")
listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", port))
listening.listen(64)
while True:
    connection, _ = listening.accept()
    connection.close()
