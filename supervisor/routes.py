"""The routes of the control API by name: how they are counted, and how they are documented. Pure."""

from __future__ import annotations

import re
from functools import cache

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER = "other"  # what is at no route; callers invent such names, so they are not told apart
REGISTRY = "/v1/registry/"

_PARAMETER = re.compile(r"\(\?P<(\w+)>\[\^/\]\+\)")
_CHOICE = re.compile(r"\(([\w|]+)\)")


@cache
def templates_of(pattern: str) -> list[str]:
    """A route's pattern as paths with `{parameters}`, one for each of the words that it lets choose from."""
    path = _PARAMETER.sub(r"{\1}", pattern).replace("\\", "")
    choice = _CHOICE.search(path)
    if choice is None:
        return [path]
    return [path.replace(choice[0], word) for word in choice[1].split("|")]


def name_of(path: str, pattern: str) -> str:
    """The template that a request's path belongs to, which this route's pattern has matched ("": none has)."""
    if path.startswith(REGISTRY):
        return f"{REGISTRY}..."
    if not pattern:
        return OTHER
    names = templates_of(pattern)
    last = path.rpartition("/")[2]
    return names[0] if len(names) == 1 else next(name for name in names if name.endswith(f"/{last}"))
