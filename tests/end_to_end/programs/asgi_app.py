"""The smallest ASGI application: it answers with the pid of its worker."""

import os


async def app(scope, receive, send):  # type: ignore[no-untyped-def]
    """Answer HTTP requests; there is nothing to do at start and end."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
