"""A center of its own process, as far as the store is concerned: prints who it is, then one line for each change.

Arguments: url, name, and "lead" (prints `leads EPOCH` and `follows`) or "write" (prints the seq of each event that is
kept). The password of the store is read from stdin.
"""

from __future__ import annotations

import asyncio
import sys

from control_center.leadership import Leadership
from control_center.store import Store


def say(text: object) -> None:
    print(text, flush=True)


async def main(url: str, name: str, task: str) -> None:
    store = await Store.open(url, sys.stdin.readline().rstrip("\n") or None)
    say(f"open {store.id}")
    if task == "lead":
        await Leadership(store, name, lambda epoch: say("follows" if epoch is None else f"leads {epoch}")).run()
    while True:
        say((await store.add_event("node", {"by": name})).seq)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
