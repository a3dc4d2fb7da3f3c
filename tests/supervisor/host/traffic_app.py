"""An ASGI server on an inherited listening socket, which keeps its own count of what is open in a file.

Arguments: uvicorn | hypercorn, the socket's number, the file of the count, the file whose existence ends what waits.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class App:
    """/wait answers when it is told to, all else at once; WebSockets say back what begins with "echo"."""

    def __init__(self, count_path: str, release_path: str) -> None:
        self._count, self._release_path = 0, release_path
        self._file = os.open(count_path, os.O_WRONLY | os.O_CREAT)
        self._write()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for word in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{word}.complete"})
        elif scope["type"] == "websocket":
            with self._counted():
                await self._talk(receive, send)
        else:
            with self._counted():
                await self._answer(scope["path"], send)

    async def _answer(self, path: str, send: Any) -> None:
        while path == "/wait" and not os.path.exists(self._release_path):
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _talk(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if message["text"].startswith("echo"):
                await send({"type": "websocket.send", "text": message["text"]})

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._count += 1
        self._write()
        try:
            yield
        finally:
            self._count -= 1
            self._write()

    def _write(self) -> None:
        os.pwrite(self._file, f"{self._count:8}".encode(), 0)


def main() -> None:
    kind, number, count_path, release_path = sys.argv[1:]
    app = App(count_path, release_path)
    if kind == "uvicorn":
        import uvicorn

        listening = socket.socket(fileno=int(number))
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
    else:
        from hypercorn.asyncio import serve
        from hypercorn.config import Config

        config = Config()
        config.bind = [f"fd://{number}"]
        asyncio.run(serve(app, config))


if __name__ == "__main__":
    main()
