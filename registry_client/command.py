"""`python -m registry_client list|watch|get|inspect`: prints what a registry holds, whichever it is.

Results go to standard output, everything about the registry's health to standard error. Nothing is ever written to
the registry.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import stat
import sys
import time
from collections.abc import Coroutine, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any

from .backend import Backend
from .command_options import make_parser, open_chosen
from .command_text import Report, change_lines, entry_text, list_text
from .errors import RegistryError, RegistryRejected, RegistryUnavailable, Unsupported
from .model import Snapshot

FOUND, NOT_THERE, USAGE, REFUSED, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 4, 69, 130

_log = logging.getLogger("registry_client")


def main(arguments: Sequence[str]) -> int:
    """The command; answers its exit code (argparse ends the process by itself, with 0 for help and 2 for mistakes)."""
    chosen = make_parser().parse_args(arguments)
    logging.basicConfig(format="registry_client: %(message)s", stream=sys.stderr, level=logging.WARNING)
    _log.setLevel(logging.INFO)  # that a watch goes on again is worth a line
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may be anything, terminals may be old
    try:
        return asyncio.run(_run(chosen))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return FOUND
    except Unsupported as error:
        return _complain(error, USAGE)
    except RegistryUnavailable as error:
        return _complain(error, UNAVAILABLE)
    except RegistryError as error:
        return _complain(error, USAGE if isinstance(error, RegistryRejected) and error.code == "bad_ttl" else REFUSED)


def _complain(error: Exception, code: int) -> int:
    print(f"registry_client: {error}", file=sys.stderr)
    return code


def _forget_output() -> None:
    """Nobody reads it any more: what is left must not fail once more at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _run(chosen: argparse.Namespace) -> int:
    backend = open_chosen(chosen, os.environ)
    as_json = getattr(chosen, "output", "text") == "json"
    try:
        if chosen.action == "list":
            return await _list(backend, chosen.service, as_json)
        if chosen.action == "get":
            return await _get(backend, chosen.service, chosen.instance, as_json)
        if chosen.action == "inspect":
            return await _inspect(backend, chosen.ttl, as_json)
        return await _until_nobody_reads(_watch(backend, chosen.service, as_json))
    finally:
        await backend.close()


async def _list(backend: Backend, service: str | None, as_json: bool) -> int:
    snapshot = await backend.list(service)
    _write(_json(snapshot.to_json()) if as_json else list_text(snapshot, time.time()))
    if snapshot.entries:
        return FOUND
    print(f"registry_client: nothing is registered{f' as {service}' if service else ''}", file=sys.stderr)
    return NOT_THERE


async def _get(backend: Backend, service: str, instance: str, as_json: bool) -> int:
    entry = await backend.get(service, instance)
    if entry is None:
        print(f"registry_client: {instance} of {service} is not registered", file=sys.stderr)
        return NOT_THERE
    _write(_json(entry.to_json()) if as_json else entry_text(entry, time.time()))
    return FOUND


async def _inspect(backend: Backend, ttl_seconds: float, as_json: bool) -> int:
    asked_at = time.time()
    inspection = await backend.inspect(ttl_seconds)
    report = Report(
        backend.name,
        tuple(sorted(item.value for item in backend.capabilities)),
        ttl_seconds,
        backend.removal_bound(inspection.granted_ttl_seconds),
        asked_at,
        time.time(),
        inspection,
    )
    _write(_json(report.to_json()) if as_json else report.text())
    return FOUND


async def _watch(backend: Backend, service: str | None, as_json: bool) -> int:
    known: Snapshot | None = None
    async with aclosing(backend.watch(service)) as snapshots:
        async for snapshot in snapshots:
            if known is None:
                _log.info("watching %s: %d registered", service or "all services", len(snapshot.entries))
            elif snapshot.epoch != known.epoch:
                _log.warning("the registry has lost its memory and started anew")
            _write(_json(snapshot.to_json()) if as_json else _stamped(known, snapshot))
            known = snapshot
    return FOUND


def _stamped(known: Snapshot | None, snapshot: Snapshot) -> str:
    instant = datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    return "".join(f"{instant}Z {line}\n" for line in change_lines(known, snapshot))


async def _until_nobody_reads(watching: Coroutine[Any, Any, int]) -> int:
    """The watch's result. A quiet registry writes nothing, so that the end of our pipe must be noticed otherwise."""
    task, pipe = asyncio.create_task(watching), _output_pipe()
    if pipe is not None:
        asyncio.get_running_loop().add_reader(
            pipe, task.cancel
        )  # all that a writing end can "read" is that nobody reads
    try:
        return await task
    except asyncio.CancelledError:
        if pipe is not None and not _cancelled():
            raise BrokenPipeError from None
        raise
    finally:
        if pipe is not None:
            asyncio.get_running_loop().remove_reader(pipe)


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _output_pipe() -> int | None:
    with suppress(OSError, ValueError):
        descriptor = sys.stdout.fileno()
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return descriptor
    return None


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
