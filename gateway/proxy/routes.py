"""Which service a request is for. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..settings.proxy import ANY_HOST, Route


class Routes:
    """An exact host before a pattern, the longest pattern first, `*` last; within a host the longest prefix."""

    __slots__ = ("_by_host", "_patterns")

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_host: dict[bytes, list[tuple[bytes, str]]] = {}
        for route in routes:
            self._by_host.setdefault(route.host.encode(), []).append((route.prefix.encode(), route.service))
        for prefixes in self._by_host.values():
            prefixes.sort(key=lambda each: len(each[0]), reverse=True)
        patterns = [host for host in self._by_host if host.startswith(b"*.")]
        self._patterns = sorted(patterns, key=len, reverse=True)

    def find(self, host: bytes, path: bytes) -> str | None:
        """The service; None: there is no route. `host` is in lower case and has no port."""
        for name in self._hosts(host):
            for prefix, service in self._by_host.get(name, ()):
                if _is_below(path, prefix):
                    return service
        return None

    def _hosts(self, host: bytes) -> Iterable[bytes]:
        yield host
        yield from (pattern for pattern in self._patterns if host.endswith(pattern[1:]) and len(host) >= len(pattern))
        yield ANY_HOST.encode()


def _is_below(path: bytes, prefix: bytes) -> bool:
    """`/cart` covers `/cart` and `/cart/7`, not `/cartoon`."""
    if not path.startswith(prefix):
        return path == b"*" and prefix == b"/"
    return prefix.endswith(b"/") or len(path) == len(prefix) or path[len(prefix)] == 0x2F
