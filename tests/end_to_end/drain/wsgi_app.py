"""A WSGI application with the shutdown flag, as docs/how-to/write-a-unit.md shows it."""

import os
import time

from unit_app.wsgi import Drainable


def cart(environ, start_response):  # type: ignore[no-untyped-def]
    """`?seconds` later: the worker's generation."""
    if environ["QUERY_STRING"]:
        with open(os.environ["ASKED"], "a") as file:
            file.write("x")
        time.sleep(float(environ["QUERY_STRING"]))
    body = os.environ["UNITD_GENERATION"].encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


app = Drainable(cart)
