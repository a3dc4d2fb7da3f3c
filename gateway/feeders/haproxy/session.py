"""One connection to the runtime API of one HAProxy process: commands in, answers out.

The connection is kept: after a reload it goes on to reach the process that it was opened to, and that is the only way
to ask an old process something (HAProxy's management guide, "9.3. Unix Socket commands"). It does not take orders any
more ("Proxy is disabled"), but says what it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.errors import GatewayRefused, GatewayUnreachable

MOST_BYTES = 64 * 1024 * 1024  # of one answer
AT_ONCE = 64  # commands that are sent before their answers are read
IDLE_SECONDS = 120  # for which HAProxy keeps the connection, whatever `stats timeout` is
_END = b"\n> "

Address = str | tuple[str, int]


@dataclass(frozen=True, slots=True)
class Process:
    """What a process says of itself. `stopping`: it takes no new clients. `jobs`: what it waits for before it ends.

    `clients`: connections of clients that it has.
    """

    pid: int
    started: int  # seconds since 1970
    stopping: bool
    jobs: int
    clients: int = 0


class Session:
    """A connection. All calls raise GatewayUnreachable, after which it is closed."""

    __slots__ = ("_lock", "_reader", "_timeout", "_where", "_writer")

    def __init__(
        self, where: str, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], timeout_seconds: float
    ) -> None:
        """Use `open_session`."""
        self._where, self._timeout = where, timeout_seconds
        self._reader, self._writer = streams
        self._lock = asyncio.Lock()

    @property
    def closed(self) -> bool:
        """Nothing can be asked any more."""
        return self._writer.is_closing() or self._reader.at_eof()

    async def ask(self, command: str) -> str:
        """The answer to one command."""
        return (await self.ask_all([command]))[0]

    async def ask_all(self, commands: Sequence[str]) -> list[str]:
        """The answers to several commands, which are carried out one after the other."""
        answers: list[str] = []
        async with self._lock:
            for first in range(0, len(commands), AT_ONCE):
                answers += await self._within_time(commands[first : first + AT_ONCE])
        return answers

    async def process(self) -> Process:
        """Who is at the other end."""
        return parse_info(await self.ask("show info"), self._where)

    async def may_send(self) -> bool:
        """Whether a process that stops may still send a new request: some client of it waits for no answer yet.

        It answers each of them once more at most, and then closes the connection.
        """
        clients = (await self.process()).clients
        return clients > 0 and clients > answering(await self.ask("show sess"))

    async def begin(self) -> None:
        """Ask for a prompt after each answer: that is how the end of an answer is known."""
        async with self._lock:
            await self._within_time(["prompt"])
        await self.ask(f"set timeout cli {IDLE_SECONDS}")

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def _within_time(self, commands: Sequence[str]) -> list[str]:
        done = False
        try:
            async with asyncio.timeout(self._timeout):
                self._writer.write("".join(f"{command}\n" for command in commands).encode())
                answers = [await self._answer() for _ in commands]
            done = True
        except TimeoutError:
            raise self._unreachable(f"no answer within {self._timeout:g} s") from None
        except asyncio.IncompleteReadError as error:
            raise self._ended(error.partial) from None
        except (OSError, asyncio.LimitOverrunError) as error:
            raise self._unreachable(str(error)) from error
        finally:
            if not done:  # the next answer would be that to another command
                self.close()
        return answers

    async def _answer(self) -> str:
        return (await self._reader.readuntil(_END)).removesuffix(_END).decode(errors="replace").strip("\n")

    def _ended(self, said: bytes) -> Exception:
        if said.strip():
            return GatewayRefused(f"cannot use {self._where}: what answers there is no HAProxy: {said[:80]!r}")
        return self._unreachable("it has hung up")

    def _unreachable(self, reason: str) -> GatewayUnreachable:
        return GatewayUnreachable(f"cannot ask HAProxy at {self._where}: {reason}")


async def open_session(address: Address, timeout_seconds: float) -> Session:
    """Connect. Raises GatewayUnreachable, and GatewayRefused when somebody else answers."""
    where = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    try:
        async with asyncio.timeout(timeout_seconds):
            streams = await _connect(address)
    except TimeoutError:
        raise GatewayUnreachable(f"cannot connect to HAProxy at {where}: not within {timeout_seconds:g} s") from None
    except PermissionError as error:
        reason = "permission denied: `stats socket` takes user, group and mode"
        raise GatewayRefused(f"cannot connect to HAProxy at {where}: {reason}") from error
    except OSError as error:
        raise GatewayUnreachable(f"cannot connect to HAProxy at {where}: {error.strerror or error}") from error
    session = Session(where, streams, timeout_seconds)
    with contextlib.ExitStack() as stack:
        stack.callback(session.close)
        await session.begin()
        await session.process()
        stack.pop_all()
    return session


async def _connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(address, str):
        return await asyncio.open_unix_connection(address, limit=MOST_BYTES)
    return await asyncio.open_connection(*address, limit=MOST_BYTES)


_SENT = re.compile(r"\bsrc=(\S+) fe=(?!GLOBAL )\S+ .*?\bsrv=(?!<none>)", re.ASCII)


def answering(text: str) -> int:
    """How many clients have a request at a server, by an answer to `show sess`."""
    return len({match[1] for line in text.splitlines() if (match := _SENT.search(line))})


def parse_info(text: str, where: str = "the socket") -> Process:
    """The answer to `show info`. Raises GatewayRefused: it is none."""
    facts = dict(line.partition(": ")[::2] for line in text.splitlines())
    try:
        return Process(
            pid=int(facts["Pid"]),
            started=int(facts.get("Start_time_sec", "0")),
            stopping=facts.get("Stopping", "0") != "0",
            jobs=int(facts.get("Jobs", "0")) - int(facts.get("Unstoppable Jobs", "0")),
            clients=int(facts.get("CurrConns", "0")),
        )
    except (KeyError, ValueError):
        raise GatewayRefused(f"cannot use {where}: what answers there is no HAProxy: {text[:80]!r}") from None
