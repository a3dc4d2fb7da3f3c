"""Run any server and keep it in the service registry while it runs: a script without an event loop.

    python examples/registered_command.py http://127.0.0.1:9301 legacy 8080 -- /usr/bin/legacy-server --port 8080

The entry appears when the port takes connections. At SIGTERM it is deleted first, then readers of the registry get a
moment to act on that, and only then is the server told to end. The exit code is the server's, 128 + N after signal N.

Only `registry_client` and the standard library are used.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

from registry_client import BlockingRegistryClient, Entry, RegistryError, RegistryUnavailable, open_backend

TTL_SECONDS = 5.0
SETTLE_SECONDS = 0.5  # from "deleted" to "nobody sends to us any more"
GRACE_SECONDS = 10.0
RETRY_SECONDS = 1.0


class Stop(Exception):
    """SIGTERM came."""


def on_term(*_: object) -> None:
    """Break out of whatever the script waits for."""
    raise Stop


def make_entry(service: str, port: int) -> Entry:
    """What readers learn of us. The generation must grow with each life: here it is the time of the start."""
    host = socket.gethostname()
    started = datetime.now(UTC)
    return Entry(
        service=service,
        instance=f"{host}/{service}:{port}",
        node=host,
        unit=f"{service}:{port}",
        address="127.0.0.1",
        port=port,
        generation=int(started.timestamp() * 1000),
        started_at=started.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )


def wait_for_port(server: subprocess.Popen[bytes], port: int) -> bool:
    """True as soon as the port takes connections; False: the server has ended before."""
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def serve(registry: BlockingRegistryClient, entry: Entry, server: subprocess.Popen[bytes]) -> None:
    """Registered from when it can serve until it ends or somebody wants it to."""
    while wait_for_port(server, entry.port):
        try:
            with registry.register(entry, TTL_SECONDS):  # renewed by a thread; deleted at the end of the block
                print(f"registered {entry.instance}", flush=True)
                server.wait()
        except RegistryUnavailable as error:  # no reason to end a server that works
            print(f"{error}; trying again", file=sys.stderr, flush=True)
            time.sleep(RETRY_SECONDS)


def main(url: str, service: str, port: int, command: list[str]) -> int:
    """Returns the exit code of the command."""
    signal.signal(signal.SIGTERM, on_term)
    server = subprocess.Popen(command)
    try:
        with BlockingRegistryClient(open_backend("http", url=url)) as registry:
            serve(registry, make_entry(service, port), server)
    except (Stop, KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        time.sleep(SETTLE_SECONDS)
    except RegistryError as error:
        print(error, file=sys.stderr)
    finally:
        server.terminate()
    try:
        code = server.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        code = server.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if len(sys.argv) < 6 or sys.argv[4] != "--":
        sys.exit(f"usage: {sys.argv[0]} REGISTRY-URL SERVICE PORT -- COMMAND...")
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[5:]))
