"""Every error that this package raises on purpose; each class answers who must act.

Facts are attributes, messages are for people: "cannot <verb> <thing>: <reason>".
"""

from __future__ import annotations


class SupervisorError(Exception):
    """Base of the package's errors; never raised itself."""


class ConfigError(SupervisorError):
    """The configuration is wrong: the operator must change a file.

    `path` is the file (or None for values that no file holds), `line` counts from 1 (0: unknown),
    `key` is the dotted key, such as `unit.addToCart.stopsignal` ("" where no key is to blame).
    """

    def __init__(self, reason: str, *, path: str | None = None, line: int = 0, key: str = "") -> None:
        self.reason, self.path, self.line, self.key = reason, path, line, key
        place = path or ""
        if path and line:
            place += f":{line}"
        super().__init__(": ".join(part for part in (place, key, reason) if part))


class UnknownUnit(SupervisorError):
    """No unit has that name, or no name matches that pattern: the caller must name another."""

    def __init__(self, name: str, nearest: str | None = None) -> None:
        self.name, self.nearest = name, nearest
        hint = f" (did you mean {nearest}?)" if nearest else ""
        super().__init__(f"no unit is called {name}{hint}")


class SpawnError(SupervisorError):
    """A process could not be started: the unit's configuration or the host must change.

    `stage` is one of model.SpawnStage's values, `errno` the number of the failed call (0: none failed).
    """

    def __init__(self, stage: str, errno: int, reason: str) -> None:
        self.stage, self.errno, self.reason = stage, errno, reason
        super().__init__(reason)


class PluginError(SupervisorError):
    """A plugin cannot be used: whoever wrote or installed it must act. `distribution` is what brought it."""

    def __init__(self, plugin: str, distribution: str, reason: str) -> None:
        self.plugin, self.distribution, self.reason = plugin, distribution, reason
        super().__init__(f"cannot use the plugin {plugin} of {distribution}: {reason}")


class WireError(SupervisorError):
    """A message of the control API cannot be understood: whoever sent it must change it."""


class DaemonUnreachable(SupervisorError):
    """The daemon does not answer on `address`; the reason says why and what to do."""

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(f"cannot reach unitd at {address}: {reason}")
