"""Groups of commands that are loaded when they are named."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """`modules` says in which module of this package each command is; its function is called `NAME_command`.

    With a `prefix`, `prefix_NAME_command`.
    """

    modules: Mapping[str, str] = {}
    prefix = ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        module = self.modules.get(cmd_name)
        if module is None:
            return None
        name = f"{self.prefix}{cmd_name.replace('-', '_')}_command"
        found = getattr(import_module(f".{module}", __package__), name)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does, with a hint for a name that is not quite right."""
        if args[0] not in self.modules and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {args[0]!r}{self._hint(args[0], ctx.command_path)}")
        return super().resolve_command(ctx, args)

    def _hint(self, name: str, path: str) -> str:
        from difflib import get_close_matches

        nearest = get_close_matches(name, self.modules, n=1)
        return f"; did you mean {nearest[0]!r}?" if nearest else f"; see {path} -h"
