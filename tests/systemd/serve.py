"""A unit for a host that boots: answers over HTTP (`/slow` late), and prints numbered lines without end."""

from __future__ import annotations

import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_SECONDS = 1.5
LINE_SECONDS = 0.01


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(SLOW_SECONDS)
        body = b"%d" % os.getpid()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Its lines are the numbered ones alone."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128


def _count() -> None:
    number = 0
    while True:
        number += 1
        sys.stdout.write(f"{os.getpid()} {number} {'x' * (number % 200)}.\n")
        sys.stdout.flush()
        time.sleep(LINE_SECONDS)


threading.Thread(target=_count, daemon=True).start()
_Server(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
