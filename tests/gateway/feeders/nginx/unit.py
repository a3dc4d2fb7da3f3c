"""A server behind nginx, run as a script: `unit.py PORT NAME`. Keeps connections open, and answers each request with its name.

`?wait=0.5`: so many seconds later; `?status=500`: with this status.
"""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import parse_qs, urlsplit


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            for line in head.lower().splitlines():
                if line.startswith("content-length:"):
                    await reader.readexactly(int(line.partition(":")[2]))
            asked = parse_qs(urlsplit(head.split()[1]).query)
            await asyncio.sleep(float(asked.get("wait", ["0"])[0]))
            body = sys.argv[2].encode()
            status = asked.get("status", ["200"])[0]
            writer.write(b"HTTP/1.1 %s Said\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Until it is killed."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


asyncio.run(main())
