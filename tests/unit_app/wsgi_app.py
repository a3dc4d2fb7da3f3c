"""A WSGI application for the tests; what it does is said by the path, and by variables of the environment."""

import os
import time

from unit_app import Flag
from unit_app.wsgi import Drainable

RELEASE, LOG, BROKEN = (os.environ[name] for name in ("APP_RELEASE", "APP_LOG", "APP_BROKEN"))


def note(word):
    with open(LOG, "a") as file:
        file.write(f"{word} {os.getpid()}\n")


def released():
    while not os.path.exists(RELEASE):
        time.sleep(0.01)


def warm_up():
    note("warm")
    time.sleep(0.05)
    if os.path.exists(BROKEN):
        raise RuntimeError("no cache")


def healthy():
    return not os.path.exists(BROKEN)


def body(path):
    if path == "/ticks":
        while not os.path.exists(RELEASE):
            yield b"tick\n"
            time.sleep(0.01)
    if path in ("/stream", "/fail-late"):
        yield b"first\n"
        released()
        if path == "/fail-late":
            raise RuntimeError("asked to fail")
    yield f"done {os.getpid()}\n".encode()


def app(environ, start_response):
    path = environ["PATH_INFO"]
    note(path)
    if path == "/fail":
        raise RuntimeError("asked to fail")
    if path == "/wait":
        released()
    start_response("200 OK", [("X-App", "1")])
    return body(path)


flag = Flag()
if signal := os.environ.get("APP_SIGNAL"):
    flag.on_signal(signal)
options = {"warm_up": warm_up} if os.environ.get("APP_WARM") else {}
app = Drainable(app, flag=flag, live=healthy, ready=healthy, **options)
