"""A unit that falls ill when it is told to. It answers HTTP on a port, on one event loop, and notes what happens to it.

Arguments: port, file for notes, and of these any: `answer=FILE` (/healthz answers the status that the file holds),
`watchdog=SECONDS` (it says WATCHDOG=1 so often), `hold=SECONDS` (it begins so late), `cert=FILE` (over TLS).

`GET /do/WORD` makes it ill from then on: `fail` (answers 500), `mute` (accepts and never answers), `busy` (its event
loop turns for ever), `close` (stops listening), `silent` (no more WATCHDOG=1). `GET /say/READY=1` says that over its
notify socket. `GET /second` and `GET /minute` take so long. A signal ends only a healthy one.
"""

import asyncio
import os
import signal
import socket
import sys
import time

port, notes = int(sys.argv[1]), sys.argv[2]
options = dict(argument.split("=", 1) for argument in sys.argv[3:])
ills: set[str] = set()
servers: list[asyncio.Server] = []


def note(what: str) -> None:
    """One line: what, when (CLOCK_BOOTTIME), the process and its generation."""
    with open(notes, "a") as file:
        file.write(f"{what} {time.clock_gettime(time.CLOCK_BOOTTIME)} {os.getpid()} {os.environ['UNITD_GENERATION']}\n")


def end(*_: object) -> None:
    """The ill one does not react to a signal, as one that hangs would not."""
    note("term")
    if not ills & {"fail", "mute", "busy"}:
        os._exit(0)


def say(what: str) -> None:
    """Over the notify socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(what.encode(), os.environ["NOTIFY_SOCKET"])


def health() -> int:
    """What /healthz answers."""
    if "fail" in ills:
        return 500
    if "answer" not in options:
        return 200
    with open(options["answer"]) as file:
        return int(file.read() or 500)


async def answer(path: str) -> tuple[int, str]:
    """The status and the body for a request."""
    note(f"asked:{path}")
    verb, _, word = path[1:].partition("/")
    if verb == "healthz":
        return health(), ""
    if verb == "do":
        fall_ill(word)
    elif verb == "say":
        say(word)
    elif verb in ("second", "minute"):
        await asyncio.sleep(1 if verb == "second" else 60)
    return (500 if "fail" in ills and verb != "do" else 200), f"{os.getpid()} {os.environ['UNITD_GENERATION']}\n"


def fall_ill(word: str) -> None:
    """After this answer."""
    ills.add(word)
    if word == "busy":
        asyncio.get_running_loop().call_later(0.02, spin)
    elif word == "close":
        servers[0].close()


def spin() -> None:
    """Never come back to the event loop."""
    note("busy")
    while True:
        pass


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, one request."""
    try:
        words = (await reader.readuntil(b"\r\n\r\n")).split()
        if "mute" in ills:
            await asyncio.sleep(1000)
        status, body = await answer(words[1].decode())
        head = f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        await writer.drain()
    except (OSError, EOFError):
        pass
    finally:
        writer.close()


async def beat(seconds: float) -> None:
    """Show the watchdog that the loop turns."""
    while "silent" not in ills:
        say("WATCHDOG=1")
        await asyncio.sleep(seconds)


async def main() -> None:
    """Serve for ever."""
    tls = None
    if "cert" in options:
        import ssl

        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options["cert"])
    servers.append(await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls, backlog=64))
    note("listens")
    beating = asyncio.create_task(beat(float(options["watchdog"]))) if "watchdog" in options else None
    await asyncio.Event().wait()
    del beating


note("begin")
signal.signal(signal.SIGTERM, end)
time.sleep(float(options.get("hold", 0)))
asyncio.run(main())
