"""The smallest WSGI application: it answers with the pid of its worker."""

import os


def app(environ, start_response):  # type: ignore[no-untyped-def]
    """Answer any request."""
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
