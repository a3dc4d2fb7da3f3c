"""A program that listens where its standard input says, for tests of who listens. Loads nothing of this project.

"listen HOST PORT" answers with the port, "close" closes all, "fork" and "daemonize" make another process that takes over
and does the rest: a child, or one that is only of the same session. Each is answered with a line.
The argument is a descriptor that ends when the leader has to.
"""

from __future__ import annotations

import os
import socket
import sys


def say(word: object) -> None:
    print(word, flush=True)


def listen(host: str, port: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, reuse_port=True)


def main() -> None:
    opened: list[socket.socket] = []
    for command in iter(read_line, ""):
        match command.split():
            case ["listen", host, port]:
                opened.append(listen(host, port))
                say(opened[-1].getsockname()[1])
            case ["close"]:
                while opened:
                    opened.pop().close()
                say("closed")
            case ["fork"]:
                if pid := os.fork():
                    for held in opened:
                        held.close()
                    os.waitpid(pid, 0)
                    return
                say(os.getpid())
            case ["daemonize"]:
                if os.fork():
                    for held in opened:
                        held.close()
                    os.wait()
                    os.read(int(sys.argv[1]), 1)  # the leader lives on, and leaves its input to the other
                    return
                if os.fork():
                    os._exit(0)
                say(os.getpid())


def read_line() -> str:
    """Without a buffer: whoever takes over must find what was not read yet."""
    line = b""
    while not line.endswith(b"\n") and (character := os.read(sys.stdin.fileno(), 1)):
        line += character
    return line.decode()


if __name__ == "__main__":
    main()
