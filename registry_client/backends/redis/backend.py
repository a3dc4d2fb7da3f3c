"""The backend for Redis. scripts.py says how entries lie there, link.py how the server is asked.

One server, a master: no Redis Cluster (its keys would have to be of one slot), no Sentinel (give a name or an address
that follows the master). Entries expire by the server's wall clock: set forward, it ends them early (their holders
register again); set backward, it keeps them longer, by as much. A replica that takes over may lack what was written
last; that, a restart, and FLUSHALL are a new epoch for readers, and LOST for holders whose entries are not there.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from typing import Any

from ...backend import Capability, Inspection, granted_ttl, stale_generation
from ...errors import BadOption, LeaseLost, RegistryError, RegistryRejected, RegistryUnavailable, Unsupported
from ...model import Entry, Grant, LeaseKey, Snapshot
from ...options import Secret, Tls
from ..retry import after_failure, pause
from .link import BACKEND, Access, RedisAddress, RedisLink, ServerFull, read_info, read_version
from .scripts import ABSENT, LIST, STALE, Script, Scripts

LATENESS_SECONDS = 0.3
OLDEST_VERSION = (6, 0)

_RENEWALS_A_CALL = 500  # the server does nothing else meanwhile: about 3 ms
_LOOK_SECONDS = 1.0  # the longest sleep of a watch: nothing wakes it when the server forgets everything
_COALESCE_SECONDS = 0.05  # between two looks of a watch; changes in between come as one
_MAX_LOGGED = 1000

_log = logging.getLogger("registry_client")


class RedisBackend:
    """The Backend over a Redis master, `redis[s]://host[:port][/db]` or `unix:///path/of.sock[?db=1]`.

    `prefix` is the start of all keys, `<prefix>:...`. A password without `user` is the default user's. `tls` is for
    rediss. The user needs `~<prefix>:* +@hash +@sortedset +@stream +@keyspace +@scripting +@connection +time +info`.
    Needs redis-py (`unitd[redis]`), which is imported when the first call connects.
    """

    name = BACKEND
    capabilities = frozenset(Capability)

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        timeout_seconds: float = 2.0,
        user: str | None = None,
        password: str | Secret | None = None,
        tls: Tls | None = None,
        prefix: str = "unitd",
    ) -> None:
        options = {"url": url, "timeout_seconds": timeout_seconds, "user": user, "password": password}
        self.check_options({**options, "tls": tls, "prefix": prefix})
        self.timeout_seconds = timeout_seconds
        self._access = Access(RedisAddress.parse(url), user, Secret.of(password), tls or Tls())
        self._scripts = Scripts(prefix)
        self._links: set[RedisLink] = set()
        self._closed = asyncio.Event()
        self._renewals, self._calls = self._new_link(), self._new_link()
        self._unreadable: set[bytes] = set()

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Raise BadOption for a value that cannot be used, Unsupported when redis-py is missing."""
        if PathFinder.find_spec("redis") is None:
            raise Unsupported(f"cannot use the registry backend {cls.name}: install unitd[redis]")
        address = RedisAddress.parse(options["url"]) if "url" in options else None
        if options.get("user") is not None and options.get("password") is None:
            raise BadOption(cls.name, "user", "means nothing without password")
        if options.get("tls") is not None and not (address and address.encrypted):
            raise BadOption(cls.name, "tls", "is for a url that begins with rediss://")
        timeout, prefix = options.get("timeout_seconds", 1), options.get("prefix", "unitd")
        if type(timeout) not in (int, float) or not 0 < timeout <= 3600:
            raise BadOption(cls.name, "timeout_seconds", "must be a number of seconds above 0")
        if not isinstance(prefix, str) or not 0 < len(prefix) <= 100 or not prefix.isprintable():
            raise BadOption(cls.name, "prefix", "must be printable and of 1 to 100 characters")

    # -- holders -------------------------------------------------------------------------------------------------

    async def register(self, entry: Entry, ttl_seconds: float) -> Grant:
        """See `Backend.register`. A full server takes no new entries, but keeps those that it has up to date."""
        verb, ttl = f"register {entry.key}", granted_ttl(ttl_seconds)
        words = [*_named(entry.key), b"%d" % round(ttl * 1000), _json(entry)]
        self._check_open(verb)
        try:
            first, *rest = await self._renewals.call(verb, self._scripts.register, [*words, b"0"], self.timeout_seconds)
        except ServerFull as error:
            first, *rest = await self._call(verb, self._renewals, self._scripts.refresh, [*words, b"1"])
            if first == ABSENT:
                raise _full(verb, error) from error
        _refuse_older("register", entry.key, first, rest)
        return Grant(ttl, _number(verb, rest))

    async def renew(self, keys: Sequence[LeaseKey]) -> frozenset[LeaseKey]:
        """See `Backend.renew`. A call for every 500 of them."""
        verb = f"renew {len(keys)} lease" + "s" * (len(keys) != 1)
        self._check_open(verb)
        usual = [key for key in keys if _can_be(key)]
        lost = {key for key in keys if not _can_be(key)}
        for start in range(0, len(usual), _RENEWALS_A_CALL):
            some = usual[start : start + _RENEWALS_A_CALL]
            words = [f"{key.generation} {key.service}/{key.instance}".encode(errors="surrogatepass") for key in some]
            try:
                _, *places = await self._call(verb, self._renewals, self._scripts.renew, words)
            except RegistryUnavailable as error:
                error.may_have_counted |= start > 0
                raise
            lost.update(some[place] for place in places)
        return frozenset(lost)

    async def update(self, entry: Entry) -> None:
        """See `Backend.update`. Never prolongs."""
        verb = f"update {entry.key}"
        words = [*_named(entry.key), _json(entry)]
        first, *rest = await self._call(verb, self._renewals, self._scripts.update, words)
        _refuse_older("update", entry.key, first, rest)
        if first == ABSENT:
            raise LeaseLost(f"cannot {verb}: it is not registered")

    async def deregister(self, key: LeaseKey) -> bool:
        """See `Backend.deregister`."""
        if not _can_be(key):
            return False
        first, *rest = await self._call(f"deregister {key}", self._calls, self._scripts.deregister, _named(key))
        _refuse_older("deregister", key, first, rest)
        return bool(first != ABSENT)

    # -- readers -------------------------------------------------------------------------------------------------

    async def get(self, service: str, instance: str) -> Entry | None:
        """See `Backend.get`. A replica refuses the question, for it may know less than the master."""
        words = [_encoded(service) if "/" not in service else b"", _encoded(instance)]
        first, *rest = await self._call(f"read {instance} of {service}", self._calls, self._scripts.get, words)
        return None if first == ABSENT else self._read(b"/".join(words), rest[0])

    async def list(self, service: str | None = None) -> Snapshot:
        """See `Backend.list`."""
        _, snapshot, _ = await self._look(self._calls, service, -1, None)
        return snapshot

    async def watch(
        self, service: str | None = None, since: int = 0, epoch: str | None = None
    ) -> AsyncGenerator[Snapshot, None]:
        """See `Backend.watch`. Woken by the stream of changes, and by itself when an entry may expire."""
        self._check_open("watch the registry")
        link, failures, answered = self._new_link(), 0, False
        sleep: float | None = None  # how long nothing can be new but by a change, None: look at once
        last: Snapshot | None = None
        try:
            while not self._closed.is_set():
                try:
                    if sleep is not None:
                        await self._wait_for_change(link, since, sleep)
                    is_news, snapshot, sleep = await self._look(link, service, since, epoch)
                except RegistryError as error:
                    failures = await after_failure(error, self._closed, answered=answered, failures=failures)
                    sleep = None
                    continue
                if failures:
                    _log.info("the watch of %s goes on", link.url)
                failures, answered, since, epoch = 0, True, snapshot.revision, snapshot.epoch
                if is_news and (last is None or (last.epoch, last.entries) != (epoch, snapshot.entries)):
                    last = snapshot
                    yield snapshot
                await pause(_COALESCE_SECONDS, self._closed)
        finally:
            link.close()
            self._links.discard(link)

    async def inspect(self, ttl_seconds: float) -> Inspection:
        """See `Backend.inspect`."""
        verb, granted = "inspect the registry", granted_ttl(ttl_seconds)
        facts = read_info(await self._command(verb, b"INFO"))
        clock = await self._command(verb, b"TIME")
        try:
            seconds, micros = map(int, clock)
        except (TypeError, ValueError) as error:
            raise _senseless(verb, clock) from error
        return Inspection(granted, facts.get("redis_version"), seconds + micros / 1e6, warnings=tuple(_warnings(facts)))

    def removal_bound(self, ttl_seconds: float) -> float:
        """See `Backend.removal_bound`. Readers see an expiry to the millisecond; the rest is for watches to be told."""
        return granted_ttl(ttl_seconds) + LATENESS_SECONDS

    async def close(self) -> None:
        """See `Backend.close`."""
        self._closed.set()
        for link in self._links:
            link.close()
        await asyncio.sleep(0)  # lets the loop close the sockets

    # -- calls ---------------------------------------------------------------------------------------------------

    def _new_link(self) -> RedisLink:
        link = RedisLink(self._access)
        self._links.add(link)
        return link

    def _check_open(self, verb: str) -> None:
        if self._closed.is_set():
            raise RegistryRejected(f"cannot {verb}: this client of the registry is closed", code="closed")

    async def _call(self, verb: str, link: RedisLink, script: Script, words: Sequence[bytes]) -> Sequence[Any]:
        self._check_open(verb)
        try:
            return await link.call(verb, script, words, self.timeout_seconds)
        except ServerFull as error:
            raise _full(verb, error) from error

    async def _command(self, verb: str, *words: bytes) -> Any:
        self._check_open(verb)
        return await self._calls.command(verb, words, self.timeout_seconds)

    async def _look(
        self, link: RedisLink, service: str | None, since: int, epoch: str | None
    ) -> tuple[bool, Snapshot, float]:
        """Whether something is newer, the snapshot (empty, if nothing is), and seconds until an entry may expire."""
        verb = "list the entries" if service is None else f"list the entries of {service}"
        name = b"" if service is None else _encoded(service) or b"\0"  # no service is called so
        words = [name, b"%d" % since, (epoch or "").encode(errors="surrogatepass")]
        first, *rest = await self._call(verb, link, self._scripts.look, words)
        try:
            now_epoch, revision, wait, *pairs = rest
            found = [self._read(key, value) for key, value in zip(pairs[::2], pairs[1::2], strict=True)]
            snapshot_epoch, number, wait_seconds = now_epoch.decode(), int(revision), int(wait) / 1000
        except (AttributeError, TypeError, ValueError) as error:
            raise _senseless(verb, rest) from error
        entries = sorted(
            (entry for entry in found if entry is not None), key=lambda entry: (entry.service, entry.instance)
        )
        snapshot = Snapshot(number, snapshot_epoch, service, tuple(entries))
        return first == LIST, snapshot, wait_seconds if wait_seconds >= 0 else _LOOK_SECONDS

    async def _wait_for_change(self, link: RedisLink, revision: int, seconds: float) -> None:
        """Sleep in the server until a revision after this one, and not longer than that."""
        millis = 1 + int(min(seconds, _LOOK_SECONDS) * 1000)
        words = [b"XREAD", b"COUNT", b"1", b"BLOCK", b"%d" % millis, b"STREAMS"]
        words += [self._scripts.changes, b"%d-0" % revision]
        await link.command("watch the registry", words, self.timeout_seconds + millis / 1000)

    def _read(self, key: bytes, value: object) -> Entry | None:
        """The entry of a key `<service>/<instance>`; None, and once a line in the log, when it is none of ours."""
        try:
            entry = Entry.from_json(json.loads(value)) if isinstance(value, bytes) else None
            if entry is not None and f"{entry.service}/{entry.instance}".encode() == key:
                return entry
            reason = "it is another one's"
        except (ValueError, RecursionError, RegistryRejected) as error:
            reason = str(error)
        if key not in self._unreadable and len(self._unreadable) < _MAX_LOGGED:
            self._unreadable.add(key)
            _log.warning("skipping the entry %s at %s: %s", key.decode(errors="replace"), self._calls.url, reason)
        return None


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _named(key: LeaseKey) -> list[bytes]:
    return [_encoded(key.service), _encoded(key.instance), b"%d" % key.generation]


def _json(entry: Entry) -> bytes:
    return json.dumps(entry.to_json(), ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def _can_be(key: LeaseKey) -> bool:
    """Whether a registration can have this key; `<service>/<instance>` must not be read as another one's."""
    return bool(key.service and key.instance and key.generation >= 0) and "/" not in key.service


def _refuse_older(verb: str, key: LeaseKey, first: bytes, rest: Sequence[Any]) -> None:
    if first == STALE:
        raise stale_generation(verb, key, _number(verb, rest))


def _number(verb: str, values: Sequence[Any]) -> int:
    if len(values) != 1 or not isinstance(values[0], int):
        raise _senseless(verb, values)
    return values[0]


def _full(verb: str, error: Exception) -> RegistryUnavailable:
    return RegistryUnavailable(f"cannot {verb}: the registry's memory is full ({error})", may_have_counted=False)


def _senseless(verb: str, answer: object) -> RegistryUnavailable:
    return RegistryUnavailable(f"cannot {verb}: the registry's answer makes no sense ({answer!r:.60})")


def _warnings(facts: Mapping[str, str]) -> Iterator[str]:
    """What cannot work as the server is configured."""
    version, policy = facts.get("redis_version", ""), facts.get("maxmemory_policy", "noeviction")
    if read_version(dict(facts)) < OLDEST_VERSION:
        yield f"The server is Redis {version}: use 6.0 or later."
    if policy != "noeviction":
        yield f"The maxmemory-policy is {policy}, so entries may vanish when memory is short: set noeviction."
    if (role := facts.get("role", "master")) != "master":
        yield f"The server is a {role}: give the address of its master, for nothing can be registered here."
    if facts.get("redis_mode", "standalone") != "standalone":
        yield f"The server is in the mode {facts['redis_mode']}: give one that stands alone, or with replicas."
    if facts.get("rdb_last_bgsave_status", "ok") != "ok":
        yield "The server failed to save its data last, and may refuse all changes: see its log."
