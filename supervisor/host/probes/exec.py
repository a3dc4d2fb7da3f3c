"""`exec = ["/usr/bin/check", "--fast"]`: a command ends with code 0."""

from __future__ import annotations

from signal import Signals
from typing import Any

from ...config.values import describe
from ...plugin_api import CommandResult, OptionError, ProbeResult, Target
from ..connect import reason_of

_LINE_CHARACTERS = 200


class ExecProbe:
    """Runs a command as the unit's user, without a shell; what it wrote last is shown."""

    __slots__ = ("_argv",)

    def __init__(self, options: Any) -> None:
        """The command's words. Raises OptionError."""
        if not isinstance(options, list):
            raise OptionError("", f'must be a list of strings such as ["/bin/true"], not {describe(options)}')
        for position, word in enumerate(options, 1):
            if not isinstance(word, str) or "\0" in word:
                raise OptionError("", f"item {position} must be a string without NUL, not {describe(word)}")
        if not options or not options[0]:
            raise OptionError("", "must name a program")
        self._argv = tuple(options)

    async def check(self, target: Target, timeout_seconds: float) -> ProbeResult:
        """Whether it ends with code 0 in time."""
        if target.tools is None:
            return ProbeResult(False, "a command can only be run by the daemon")
        try:
            result = await target.tools.run(target, self._argv, timeout_seconds)
        except OSError as error:
            return ProbeResult(False, f"cannot run {self._argv[0]}: {reason_of(error)}")
        line = _last_line(result.output)
        end = _end(result, timeout_seconds)
        return ProbeResult(result.ok, f"{end}: {line}" if line else end)


def _end(result: CommandResult, timeout_seconds: float) -> str:
    if result.code is not None:
        return f"ended with code {result.code}"
    if result.signal is None:
        return f"did not end within {timeout_seconds:g} s"
    return f"was killed by {_name(result.signal)}"


def _name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return "".join(character if character.isprintable() else "?" for character in last[:_LINE_CHARACTERS])
