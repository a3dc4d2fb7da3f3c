"""A server behind Envoy, run as a script with its port: it answers each request with its port, and counts them.

`/slow/<seconds>` answers late, `/fail` with 500, `/count` tells how many requests there were (it does not count itself, nor
health checks), `/broken` has all answers be 500 from then on, health checks too.
"""

import asyncio
import sys


class Unit:
    """What it counts, and whether it is broken."""

    def __init__(self, port: int) -> None:
        self.port, self.count, self.broken = port, 0, False

    async def answer(self, path: str) -> tuple[int, str]:
        """Status and body."""
        if path == "/count":
            return 200, str(self.count)
        if path == "/broken":
            self.broken = True
            return 200, ""
        if path != "/healthz":
            self.count += 1
        if path.startswith("/slow/"):
            await asyncio.sleep(float(path.removeprefix("/slow/")))
        return (500 if self.broken or path == "/fail" else 200), str(self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, with as many requests as come."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                status, body = await self.answer(head.split(b" ", 2)[1].decode())
                writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(Unit(port).serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
