"""A small HTTP server for HAProxy to send to: a thread of the test, or (`python origin.py PORT`) a process to be killed.

Keeps connections alive for long, and answers with its port. `/slow/SECONDS` waits before it answers; `/bad` answers 500.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter


class Origin:
    """Listens on 127.0.0.1:`port` (0: any) while it is entered. `connections` and `requests` are what it has seen."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self.open = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="origin")

    def __enter__(self) -> Origin:
        self._thread.start()
        assert self._ready.wait(5.0)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)

    @property
    def total(self) -> int:
        """All requests so far."""
        return sum(self.requests.values())

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(self.listen())
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def listen(self) -> asyncio.Server:
        """Begin to serve."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # cancelled: this server ends, and nobody waits for the task
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1].decode()
        self.requests[path] += 1
        if path.startswith("/slow/"):
            await asyncio.sleep(float(path.rpartition("/")[2]))
        status = b"500 No" if path == "/bad" else b"200 OK"
        body = str(self.port).encode()
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        return True


async def _main() -> None:
    async with await Origin(int(sys.argv[1])).listen() as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
