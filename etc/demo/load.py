#!/usr/bin/env python3
"""A few customers of the shop: a steady trickle of requests to the gateway, and a line about them now and then.

    python3 load.py --url http://127.0.0.1:9000 --rate 40

Each request is sent once; one that fails is told with its reason. A line says how many there were, how many failed, and
which share of them each process of the shop has answered. It needs nothing but Python 3.11.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

CUSTOMERS = 8
PATIENCE_SECONDS = 15.0
ITEM = json.dumps({"sku": "tea", "quantity": 1}).encode()


class Book:
    """What became of the requests since the last line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[str] = Counter()  # by the process that answered
        self._failures: Counter[str] = Counter()  # by reason
        self.total = self.failed = 0

    def note(self, process: str | None, failure: str = "") -> None:
        """One request: who answered it (None: somebody), or why nobody did."""
        with self._lock:
            self.total += 1
            self.failed += bool(failure)
            self._failures[failure] += bool(failure)
            if process is not None:
                self._answers[process] += 1

    def line(self) -> str:
        """What has been noted since the line before."""
        with self._lock:
            answers, failures = self._answers, +self._failures
            self._answers, self._failures = Counter(), Counter()
            text = f"{self.total} requests, {self.failed} failed"
        asked = sum(answers.values())
        shares = (f"{name} {count * 100 // asked} %" for name, count in sorted(answers.items()))
        reasons = (f"{count} x {reason}" for reason, count in failures.most_common(3))
        return "; ".join(filter(None, (text, ", ".join(shares), ", ".join(reasons))))


class Customer(threading.Thread):
    """One kept-alive connection to the gateway, and requests on it at a fixed pace."""

    def __init__(self, number: int, url: str, pause_seconds: float, book: Book, enough: threading.Event) -> None:
        super().__init__(name=f"customer {number}")
        self._number, self._pause, self._book, self._enough = number, pause_seconds, book, enough
        self._place = urlsplit(url).netloc
        self._connection = HTTPConnection(self._place, timeout=PATIENCE_SECONDS)

    def run(self) -> None:
        due, count = time.monotonic() + self._number * self._pause / CUSTOMERS, 0
        while not self._enough.wait(max(0.0, due - time.monotonic())):
            self._ask(count)
            count, due = count + 1, due + self._pause
        self._connection.close()

    def _ask(self, count: int) -> None:
        """Mostly a look at the front page, which says who answers; now and then something for the cart."""
        user, process, failure = f"customer-{self._number}", None, ""
        try:
            if count % 5 == 4:
                self._send("POST", f"/cart/{user}/items", ITEM)
            elif count % 5 == 2:
                self._send("GET", f"/cart/{user}")
            else:
                process = f"addToCart:{self._send('GET', '/')['process']}"
        except (OSError, HTTPException, ValueError, KeyError) as error:
            failure = str(error) or type(error).__name__
            self._connection.close()
        self._book.note(process, failure)

    def _send(self, method: str, path: str, body: bytes | None = None) -> dict[str, object]:
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        with contextlib.closing(self._connection.getresponse()) as response:
            text = response.read()
        if response.status != 200:
            raise HTTPException(f"status {response.status}")
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        return found


def main() -> None:
    """Send requests until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Customers of the demo shop.")
    parser.add_argument("--url", required=True, help="of the gateway")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between two lines")
    options = parser.parse_args()
    book, enough = Book(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: enough.set())
    customers = [Customer(number, options.url, CUSTOMERS / options.rate, book, enough) for number in range(CUSTOMERS)]
    for customer in customers:
        customer.start()
    while not enough.wait(options.every):
        print(book.line(), flush=True)
    for customer in customers:
        customer.join()
    print(book.line(), flush=True)


if __name__ == "__main__":
    main()
