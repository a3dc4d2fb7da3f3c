"""What runs inside Redis: every change is one script, so that generations are compared where nobody comes between.

The keys below a prefix, none of which an `expired` event is needed for:

    <prefix>:meta                        hash: `revision`, `epoch`, `run` (the life of the server that the epoch is of),
                                         `emptied` (the revision at which a service last became empty)
    <prefix>:entry:<service>/<instance>  hash: `entry` (JSON), `generation`, `ttl` (ms); the key expires with the entry
    <prefix>:index:<service>             sorted set: instance -> when it expires (ms)
    <prefix>:services                    sorted set: service -> when the first of its entries may expire (ms)
    <prefix>:revisions                   hash: service -> revision of its last change
    <prefix>:changes                     stream: one item for each revision, `<revision>-0`; only there to wake watchers

A hash, not a string, holds an entry: HSET leaves the expiry as it is, where SET would make the entry immortal. That
the key is there is the truth about an entry; the index only says when to look. What is due in it is swept by whoever
looks, and gone from the index with one new revision, however many look at once.

Sources: redis.io/docs/latest/develop/interact/programmability, .../data-types/streams, the commands' pages.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

# The first words of answers.
LATE, DONE, STALE, ABSENT, SAME, LIST = b"late", b"done", b"stale", b"absent", b"same", b"list"

# Words of every script: the life of the server, an epoch to begin if one must, and until when it may do anything.
# A write that does nothing comes first, so that a replica (whose data may be old) refuses in any case.
_PRELUDE = """
local meta, run, token, deadline = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if now > deadline then return {'late', now} end
local prefix = string.sub(meta, 1, -5)
local services, revisions, changes = prefix .. 'services', prefix .. 'revisions', prefix .. 'changes'
redis.call('HDEL', meta, '-')
local function index_of(service) return prefix .. 'index:' .. service end
local function key_of(service, instance) return prefix .. 'entry:' .. service .. '/' .. instance end
local function text(number) return string.format('%.0f', number) end
local function bump(what)
  local revision = redis.call('HINCRBY', meta, 'revision', 1)
  redis.call('XADD', changes, 'MAXLEN', '~', 1000, text(revision) .. '-0', 'what', what)
  return revision
end
local function mark(service, revision)
  if redis.call('EXISTS', index_of(service)) == 1 then
    redis.call('HSET', revisions, service, text(revision))
  else
    redis.call('HDEL', revisions, service)
    redis.call('ZREM', services, service)
    redis.call('HSET', meta, 'emptied', text(revision))
  end
end
local function held(key)
  local fields = redis.pcall('HMGET', key, 'generation', 'ttl', 'entry')
  if fields.err then return nil end
  return tonumber(fields[1]), tonumber(fields[2]), fields[3]
end
if redis.call('HGET', meta, 'run') ~= run then
  redis.call('DEL', changes)
  redis.call('HSET', meta, 'run', run, 'epoch', token)
  redis.call('HSET', meta, 'emptied', text(bump('epoch')))
end
"""

_SWEEP = """
local function sweep_service(service)
  local index, removed = index_of(service), 0
  for _, instance in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', text(now))) do
    local key = key_of(service, instance)
    local left = redis.call('PTTL', key)
    if left > 0 then
      redis.call('ZADD', index, text(now + left), instance)
    else
      redis.call('DEL', key)
      redis.call('ZREM', index, instance)
      removed = removed + 1
    end
  end
  local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  if first[1] then
    redis.call('ZADD', services, first[2], service)
  else
    redis.call('ZREM', services, service)
  end
  return removed
end
local function sweep()
  local revision
  for _, service in ipairs(redis.call('ZRANGEBYSCORE', services, '-inf', text(now))) do
    if sweep_service(service) > 0 then
      revision = revision or bump('expired')
      mark(service, revision)
    end
  end
end
sweep()
"""

# Words: service, instance, generation, ttl in ms, entry, and 1 if only an entry that is there may be written.
_REGISTER = """
local service, instance, generation, ttl, entry = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local key = key_of(service, instance)
local was, _, before = held(key)
if was and was > generation then return {'stale', now, was} end
if not was then
  if ARGV[9] == '1' then return {'absent', now} end
  redis.call('DEL', key)
end
redis.call('HSET', key, 'generation', text(generation), 'ttl', text(ttl), 'entry', entry)
redis.call('PEXPIREAT', key, text(now + ttl))
local added = redis.call('ZADD', index_of(service), text(now + ttl), instance)
local known = redis.call('ZSCORE', services, service)
if not known or tonumber(known) > now + ttl then redis.call('ZADD', services, text(now + ttl), service) end
if added == 1 or not known or was ~= generation or before ~= entry then mark(service, bump('registered')) end
return {'done', now, tonumber(redis.call('HGET', meta, 'revision'))}
"""

# Words: "<generation> <service>/<instance>" of each. What an index has lost is lost: registering brings it back.
_RENEW = """
local answer, known = {'done', now}, {}
for i = 4, #ARGV do
  local generation, service, instance = string.match(ARGV[i], '^(%d+) ([^/]+)/(.+)$')
  local key = key_of(service, instance)
  local was, ttl = held(key)
  local there = false
  if ttl and was == tonumber(generation) then
    if known[service] == nil then known[service] = redis.call('ZSCORE', services, service) end
    there = known[service] and redis.call('ZSCORE', index_of(service), instance)
  end
  if there then
    redis.call('PEXPIREAT', key, text(now + ttl))
    redis.call('ZADD', index_of(service), text(now + ttl), instance)
  else
    answer[#answer + 1] = i - 4
  end
end
return answer
"""

# Words: service, instance, generation, entry.
_UPDATE = """
local service, generation = ARGV[4], tonumber(ARGV[6])
local key = key_of(service, ARGV[5])
local was, _, before = held(key)
if was and was > generation then return {'stale', now, was} end
if was ~= generation then return {'absent', now} end
if before ~= ARGV[7] then
  redis.call('HSET', key, 'entry', ARGV[7])
  mark(service, bump('updated'))
end
return {'done', now}
"""

# Words: service, instance, generation.
_DEREGISTER = """
local service, instance = ARGV[4], ARGV[5]
local key = key_of(service, instance)
local was = held(key)
if not was then return {'absent', now} end
if was > tonumber(ARGV[6]) then return {'stale', now, was} end
local revision = bump('deregistered')
redis.call('DEL', key)
redis.call('ZREM', index_of(service), instance)
mark(service, revision)
return {'done', now}
"""

# Words: service, instance.
_GET = """
local entry = redis.pcall('HGET', key_of(ARGV[4], ARGV[5]), 'entry')
if not entry or type(entry) == 'table' then return {'absent', now} end
return {'done', now, entry}
"""

# Words: service ("" for all), the revision and the epoch that are known ("" for any).
# Answers the epoch, the revision, ms until an entry may expire (-1: none can), and if there is news, all entries.
_LOOK = """
local service, since, known = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local facts = redis.call('HMGET', meta, 'epoch', 'revision', 'emptied')
local revision = tonumber(facts[2])
local latest, names, first = revision, nil, nil
if service == '' then
  names = redis.call('ZRANGE', services, 0, -1)
  first = redis.call('ZRANGE', services, 0, 0, 'WITHSCORES')[2]
else
  names = {service}
  first = redis.call('ZSCORE', services, service)
  latest = tonumber(redis.call('HGET', revisions, service))
  latest = latest or (redis.call('EXISTS', index_of(service)) == 1 and revision) or tonumber(facts[3]) or revision
end
local wait = first and math.max(0, tonumber(first) - now) or -1
local answer = {'same', now, facts[1], revision, wait}
if latest <= since and since <= revision and (known == '' or known == facts[1]) then return answer end
answer[1] = 'list'
for _, name in ipairs(names) do
  for _, instance in ipairs(redis.call('ZRANGE', index_of(name), 0, -1)) do
    local entry = redis.pcall('HGET', key_of(name, instance), 'entry')
    if type(entry) == 'string' then
      answer[#answer + 1] = name .. '/' .. instance
      answer[#answer + 1] = entry
    end
  end
end
return answer
"""


@dataclass(frozen=True, slots=True)
class Text:
    """A script as Redis gets it, and the digest that it knows it by."""

    source: bytes
    digest: bytes

    @classmethod
    def of(cls, source: str) -> Text:
        """With its digest."""
        raw = source.encode()
        return cls(raw, hashlib.sha1(raw, usedforsecurity=False).hexdigest().encode())


class Script:
    """One script for the key `<prefix>:meta`.

    `when_full` lets it run in a server whose memory is full, for it needs next to none. Redis 7 goes by that flag; an
    older one lets every script of ours run, for it looks at its memory only until a script's first write.
    """

    __slots__ = ("_flagged", "_plain", "key")

    def __init__(self, prefix: str, body: str, *, when_full: bool = True) -> None:
        self.key = f"{prefix}:meta".encode()
        head = "#!lua flags=allow-oom" if when_full else "#!lua"
        self._plain, self._flagged = Text.of(_PRELUDE + body), Text.of(head + _PRELUDE + body)

    def text(self, *, flags: bool) -> Text:
        """For a server that knows flags of scripts, or not."""
        return self._flagged if flags else self._plain


class Scripts:
    """All scripts for one prefix."""

    __slots__ = ("changes", "deregister", "get", "look", "refresh", "register", "renew", "update")

    def __init__(self, prefix: str) -> None:
        self.changes = f"{prefix}:changes".encode()
        self.register = Script(prefix, _SWEEP + _REGISTER, when_full=False)
        self.refresh = Script(prefix, _SWEEP + _REGISTER)
        self.renew, self.update = Script(prefix, _RENEW), Script(prefix, _UPDATE)
        self.deregister, self.get = Script(prefix, _DEREGISTER), Script(prefix, _GET)
        self.look = Script(prefix, _SWEEP + _LOOK)
