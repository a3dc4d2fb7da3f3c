"""A unit that has work in flight: HTTP/1.1 with kept-alive connections, and a note of everything that happens to it.

SIGTERM ends it at once, whatever it is working on: what a stop spares, the supervisor has spared. Noted is how much that
was; SIGUSR1 is only noted. Arguments: port, file for notes. Port 0: it serves nobody, and waits for signals.

    GET /                    "PID GENERATION" at once; any other path too, noted as `got`
    GET /slow?2              the same, after that time; noted as `asked` and `answered`
    POST /job                answered at once; its work, which is part of /in-flight alone, goes on until POST /finish
    GET /in-flight           {"in_flight": number of slow requests and jobs}
    POST /drain, /undrain    noted; in between it is not ready
    POST /fail               500
    POST /hang               never answered
    GET /events?0.1,20       so many server-sent events, one after each such time
    GET /healthz             200, or 503 after POST /sick; well again after POST /well
    GET /ready               the same, and 503 between /drain and /undrain
"""

import asyncio
import json
import os
import signal
import sys
import time

port, notes = int(sys.argv[1]), sys.argv[2]
SILENT = ("/drain", "/undrain", "/in-flight", "/healthz", "/ready", "/slow", "/events")
GENERATION = os.environ["UNITD_GENERATION"]
BODY = f"{os.getpid()} {GENERATION}\n".encode()
state = {"busy": 0, "well": True, "told": False}


def note(what: str, detail: str = "-") -> None:
    """One line: what, when (CLOCK_BOOTTIME), the process, its generation, and more about it."""
    with open(notes, "a") as file:
        file.write(f"{what} {time.clock_gettime(time.CLOCK_BOOTTIME)} {os.getpid()} {GENERATION} {detail}\n")


def end() -> None:
    """As if it knew nothing of grace."""
    note("term", str(state["busy"]))
    os._exit(0)


async def do_job() -> None:
    """Work that no connection tells of."""
    state["busy"] += 1
    await finished.wait()
    state["busy"] -= 1
    note("job")


async def answer(path: str, query: str, header: str, writer: asyncio.StreamWriter) -> None:
    """One request."""
    status, body = "200 OK", BODY
    match path:
        case "/slow":
            note("asked")
            state["busy"] += 1
            await asyncio.sleep(float(query))
            state["busy"] -= 1
        case "/job":
            jobs.add(asyncio.ensure_future(do_job()))
        case "/finish":
            finished.set()
        case "/in-flight":
            body = json.dumps({"in_flight": state["busy"]}).encode()
        case "/fail":
            status = "500 Internal Server Error"
        case "/hang":
            note("got", path)
            await asyncio.sleep(1000)
        case "/sick" | "/well":
            state["well"] = path == "/well"
        case "/drain" | "/undrain":
            state["told"] = path == "/drain"
            note(path[1:])
        case "/healthz" | "/ready" if not state["well"] or (state["told"] and path == "/ready"):
            status = "503 Service Unavailable"
        case "/events":
            await tell(*map(float, query.split(",")), writer)
            return
    if path not in SILENT:
        note("got", f"{path} {header}".strip())
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    if path == "/slow":
        note("answered")


async def tell(every: float, count: float, writer: asyncio.StreamWriter) -> None:
    """Server-sent events, until they are all told or nobody listens any more."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    for number in range(int(count)):
        writer.write(b"data: %d\n\n" % number)
        await writer.drain()
        await asyncio.sleep(every)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, kept as long as the client wants."""
    try:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            lines = head.split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            await reader.readexactly(int(fields.get("content-length", "0")))
            path, _, query = lines[0].split(" ")[1].partition("?")
            await answer(path, query, "warmup" if "x-warmup" in fields else "", writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGUSR1, note, "usr1")
    note("begin")
    if port:
        await asyncio.start_server(serve, "127.0.0.1", port)
    await asyncio.Event().wait()


jobs: set[asyncio.Future[None]] = set()
finished = asyncio.Event()
asyncio.run(main())
