"""An ASGI application with the shutdown flag, as docs/how-to/write-a-unit.md shows it."""

import asyncio
import os

from unit_app.asgi import Drainable


async def cart(scope, receive, send):  # type: ignore[no-untyped-def]
    """`?seconds` later: the worker's generation. A WebSocket: every message comes back."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
    elif scope["type"] == "http":
        if scope["query_string"]:
            with open(os.environ["ASKED"], "a") as file:
                file.write("x")
            await asyncio.sleep(float(scope["query_string"]))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": os.environ["UNITD_GENERATION"].encode()})


app = Drainable(cart, close_websockets=bool(os.environ.get("CLOSE_WEBSOCKETS")))
