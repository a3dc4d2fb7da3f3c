"""Looks from outside, again and again: who is in the registry, and does each of them answer? One line for each look.

`TIME INSTANCE=WORD,...`, with WORD what its process answered, or `failed: ...`; `TIME !REASON` without a registry.
"""

from __future__ import annotations

import http.client
import json
import sys
import time

LOOK_SECONDS = 0.02


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"status {answer.status}")
        return body
    finally:
        connection.close()


def _word(port: int) -> str:
    try:
        return _get(port, "/").decode()
    except (OSError, http.client.HTTPException) as error:
        return f"failed: {error!r}".replace(",", ";")


def _look(registry: int, service: str) -> str:
    try:
        entries = json.loads(_get(registry, f"/v1/registry/services/{service}"))["entries"]
    except (OSError, http.client.HTTPException) as error:
        return f"!{error!r}"
    return ",".join(
        f"{entry['instance'].rpartition('/')[2]}={_word(entry['port'])}"
        for entry in sorted(entries, key=lambda entry: str(entry["instance"]))
        if entry["weight"] and entry["status"] not in ("draining", "down")
    )


while True:
    at = time.time()
    print(f"{at:.3f} {_look(int(sys.argv[1]), sys.argv[2])}", flush=True)
    time.sleep(LOOK_SECONDS)
