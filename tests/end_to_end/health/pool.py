"""A WSGI application whose workers are given away one by one: `/sleep` never comes back."""

import time


def app(environ, start_response):  # type: ignore[no-untyped-def]
    """Answer any request but one."""
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(1000)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return []
