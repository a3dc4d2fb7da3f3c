"""Names of units as arguments: on the TAB key the daemon is asked which there are."""

from __future__ import annotations

from typing import Any

import click

from ..errors import SupervisorError
from .decode import raw_list
from .session import Session, TextType

_ANSWER_SECONDS = 1.0  # nobody waits longer for a TAB, unless --timeout on the line says so


class UnitNames(TextType):
    """Names or patterns of units."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """The units and groups whose names begin so, with their states; [] when the daemon does not answer."""
        from click.shell_completion import CompletionItem  # only on the TAB key

        session = ctx.find_object(Session)
        names = {} if session is None else _candidates(session)
        return [CompletionItem(name, help=text) for name, text in names.items() if name.startswith(incomplete)]


def _candidates(session: Session) -> dict[str, str]:
    session.timeout = _ANSWER_SECONDS if session.timeout is None else session.timeout
    try:
        items = raw_list(session.client().get("/v1/units"), "units")
    except (SupervisorError, click.ClickException, OSError):
        return {}
    units = {str(item.get("unit")): str(item.get("state")) for item in items}
    groups = {f"{name.partition(':')[0]}:*": "the whole group" for name in units if ":" in name}
    return {**units, **groups, "all": "every unit"}


NAMES = UnitNames()
