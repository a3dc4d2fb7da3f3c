"""Asking an ejected or lost server whether it answers HTTP at all, on a connection of its own."""

from __future__ import annotations

import asyncio
import re

from ..model import Server

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\r?\n)")


async def ask(server: Server, probe: str, seconds: float) -> str:
    """Why the server is not well; "": it is.

    With the probe `*` any HTTP answer to OPTIONS * will do (RFC 9110 section 9.3.7); a path is got, and must not be
    answered with 5xx.
    """
    try:
        async with asyncio.timeout(seconds):
            status = await _status(server, probe)
    except TimeoutError:
        return f"asked for {probe}, it does not answer within {seconds:g} s"
    except (OSError, UnicodeError, ValueError) as error:
        return f"asked for {probe}: {getattr(error, 'strerror', None) or error}"
    if status is None:
        return f"asked for {probe}, it does not answer in HTTP"
    return f"asked for {probe}, it answers {status}" if probe != "*" and status >= 500 else ""


async def _status(server: Server, probe: str) -> int | None:
    reader, writer = await asyncio.open_connection(*server.place, limit=4096)
    method = "OPTIONS" if probe == "*" else "GET"
    host = f"[{server.address}]" if ":" in server.address else server.address
    lines = (
        f"{method} {probe} HTTP/1.1",
        f"Host: {host}:{server.port}",
        "User-Agent: unit-gateway",
        "Connection: close",
    )
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        match = _STATUS.match(await reader.readline())
    finally:
        writer.transport.abort()
    return int(match[1]) if match else None
