"""A main program that hears a signal for uvicorn's workers."""

import sys

import uvicorn

from unit_app import Flag

if __name__ == "__main__":
    Flag().on_signal("RTMIN")
    uvicorn.run("tests.unit_app.asgi_app:app", port=int(sys.argv[1]), workers=2)
