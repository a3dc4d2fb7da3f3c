"""An ASGI application for the tests; what it does is said by the path, and by variables of the environment."""

import asyncio
import os

from unit_app import Flag
from unit_app.asgi import Drainable

RELEASE, LOG, BROKEN = (os.environ[name] for name in ("APP_RELEASE", "APP_LOG", "APP_BROKEN"))


def note(word):
    with open(LOG, "a") as file:
        file.write(f"{word} {os.getpid()}\n")


async def released():
    while not os.path.exists(RELEASE):
        await asyncio.sleep(0.01)


async def warm_up():
    note("warm")
    await asyncio.sleep(0.05)
    if os.path.exists(BROKEN):
        raise RuntimeError("no cache")


async def healthy():
    return not os.path.exists(BROKEN)


async def lifespan(receive, send):
    for word in ("startup", "shutdown"):
        await receive()
        note(word)
        await send({"type": f"lifespan.{word}.complete"})


async def talk(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
    note(f"closed-{message['code']}")


async def ticks(receive, send):
    await receive()
    gone = asyncio.ensure_future(receive())
    while not gone.done() and not os.path.exists(RELEASE):
        await send({"type": "http.response.body", "body": b"tick\n", "more_body": True})
        await asyncio.wait({gone}, timeout=0.01)
    gone.cancel()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await talk(receive, send)
    else:
        await answer(scope["path"], receive, send)


async def answer(path, receive, send):
    note(path)
    if path == "/fail":
        raise RuntimeError("asked to fail")
    if path == "/wait":
        await released()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    if path == "/ticks":
        await ticks(receive, send)
    if path in ("/stream", "/fail-late"):
        await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
        await released()
        if path == "/fail-late":
            raise RuntimeError("asked to fail")
    await send({"type": "http.response.body", "body": f"done {os.getpid()}\n".encode()})


flag = Flag()
if signal := os.environ.get("APP_SIGNAL"):
    flag.on_signal(signal)
options = {"warm_up": warm_up} if os.environ.get("APP_WARM") else {}
app = Drainable(
    app, flag=flag, live=healthy, ready=healthy, close_websockets=bool(os.environ.get("APP_CLOSE")), **options
)
