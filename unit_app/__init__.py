"""What a service may import to be drained well: the shutdown flag, and the paths by which it is set and read.

    from unit_app.asgi import Drainable     # uvicorn, hypercorn, ...
    from unit_app.wsgi import Drainable     # gunicorn, uWSGI, ...

    app = Drainable(app)

`POST /-/drain` sets the flag: requests that run finish, new ones are refused with 503. `GET /-/in-flight` says how many
still run, in all processes that serve the port together. Nothing but the standard library is needed, and the module for
WSGI does not import asyncio.
"""

from .flag import Flag

__all__ = ["Flag"]
