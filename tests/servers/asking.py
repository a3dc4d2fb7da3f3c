"""One HTTP question with a JSON answer, for the servers that speak it."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any


def ask(
    port: int,
    method: str,
    path: str,
    body: object = None,
    *,
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_seconds: float = 2.0,
) -> tuple[int, Any]:
    """Send a request to 127.0.0.1 and return the status and the decoded answer (its text, when it is no JSON).

    OSError when nothing came back; a broken answer counts as that.
    """
    if tls is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout_seconds, context=tls)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        response = connection.getresponse()
        text = response.read().decode()
        status = response.status
    except http.client.HTTPException as error:
        raise OSError(f"a broken answer: {error!r}") from error
    finally:
        connection.close()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text
