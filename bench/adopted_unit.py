"""A unit that proves what its supervisor does with it: it holds a lock for its life, notes its beginning, says numbered
lines, and serves as `loaded_server.py` does; or it ends by itself after a while, as often as it is started.

Arguments: folder for lock and notes, port, [--crash]. A line is its generation and a number, a note `begin` or `twice`
(another life held the lock), its generation and its pid.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import sys
import threading
import time

import loaded_server

LINES_PER_SECOND = 1000


def main() -> None:
    """Hold the lock, note the beginning, say lines, and serve."""
    folder, port, crashes = sys.argv[1], int(sys.argv[2]), "--crash" in sys.argv
    path = f"{folder}/{os.environ['UNITD_UNIT']}"
    held = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note(path, "twice")
        sys.exit(1)
    note(path, "begin")
    threading.Thread(target=say, args=(os.environ["UNITD_GENERATION"],), daemon=True).start()
    if crashes:
        time.sleep(random.uniform(0.1, 1.5))
        os._exit(3)
    asyncio.run(loaded_server.serve(port))


def note(path: str, what: str) -> None:
    descriptor = os.open(f"{path}.notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, f"{what} {os.environ['UNITD_GENERATION']} {os.getpid()}\n".encode())
    os.close(descriptor)


def say(life: str) -> None:
    begun, number = time.monotonic(), 0
    while True:
        number += 1
        os.write(1, f"{life} {number} .\n".encode())
        time.sleep(max(0.0, begun + number / LINES_PER_SECOND - time.monotonic()))


if __name__ == "__main__":
    main()
