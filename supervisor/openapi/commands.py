"""The bodies of commands: what every command may say, and the parameters of each verb."""

from __future__ import annotations

from typing import Any

from ..wire import MAX_NUMBER
from .words import Schema, flag, number, options, or_null, text, whole

_YEAR = 366 * 86400
_PERCENT = {"minimum": 1, "maximum": 100}
_SIGNAL = (
    "^((SIG)?(HUP|INT|QUIT|ILL|TRAP|ABRT|BUS|FPE|KILL|USR1|SEGV|USR2|PIPE|ALRM|TERM|STKFLT|CHLD|CONT|STOP|TSTP|TTIN|TTOU"
    "|URG|XCPU|XFSZ|VTALRM|PROF|WINCH|IO|PWR|SYS)|[1-9]|[1-5][0-9]|6[0-4])$"
)
_NOTHING = options("None.")
_FORCE = options("How.", force=or_null(flag("Even if the registry cannot confirm that the entry is gone.")))
_RESTART = options(
    "How.",
    force=or_null(flag("Even if the registry cannot confirm that the entry is gone.")),
    no_drain=or_null(flag("What it has in flight is given up: it does not answer any more.")),
)
_UNTIL = text("ISO 8601 with a time zone, not past.", format="date-time")

PARAMETERS: dict[str, Schema] = {
    "start": _NOTHING,
    "stop": _FORCE,
    "restart": _RESTART,
    "drain": {
        **options(
            "For how long; without these until it is undrained.",
            owner=or_null(text("Who keeps it out of traffic.")),
            for_seconds=number("Above 0, up to a year.", exclusiveMinimum=0, maximum=_YEAR),
            until=_UNTIL,
        ),
        "not": {"required": ["for_seconds", "until"]},
    },
    "undrain": _NOTHING,
    "warm": {
        "description": "The configured ramp from its start, another ramp, or one order about the ramp.",
        "oneOf": [
            options(
                "A ramp.",
                initial=whole("Percent.", **_PERCENT),
                step=whole("Percent.", **_PERCENT),
                period=number("Seconds.", exclusiveMinimum=0),
            ),
            {**options("Hold it.", pause={"const": True}), "required": ["pause"]},
            {**options("Let it grow on.", resume={"const": True}), "required": ["resume"]},
            {**options("Go to a share.", jump=whole("Percent.", **_PERCENT)), "required": ["jump"]},
        ],
    },
    "weight": {
        **options(
            "The weight.",
            weight={
                "description": "At most the configured one; `auto` gives it back to the ramp.",
                "oneOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"const": "auto"}],
            },
        ),
        "required": ["weight"],
    },
    "signal": {
        **options(
            "The signal.",
            signal={
                "description": "A name such as HUP or SIGHUP, or a number.",
                "oneOf": [{"type": "integer", "minimum": 1, "maximum": 64}, {"type": "string", "pattern": _SIGNAL}],
            },
        ),
        "required": ["signal"],
    },
}
NEEDED = ("weight", "signal")  # verbs that say nothing without parameters


def command(parameters: Schema, *, required: bool) -> Schema:
    """A command's body; null is the same as absent. `required`: it says nothing without parameters."""
    made = options(
        "All of it may be left out.",
        command_id=or_null(text("Names this command: it can be repeated, and counts once.")),
        deadline=or_null(text("ISO 8601 with a time zone: not begun after it.", format="date-time")),
        reason=or_null(text("Why; kept and shown.")),
        issued_by=or_null(text("Who; kept and shown.")),
        parameters=parameters if required else {"oneOf": [parameters, {"type": "null"}]},
        expected_generation=or_null(whole("Refused if the unit has another; for one unit only.", maximum=MAX_NUMBER)),
        center=or_null(text("Which control center sends it (the id of its store); with `epoch`.")),
        epoch=or_null(whole("Of its lead; a lower one than was seen is refused.", maximum=MAX_NUMBER)),
    )
    made["dependentRequired"] = {"center": ["epoch"], "epoch": ["center"]}
    return {**made, "required": ["parameters"]} if required else made


def body(parameters: Schema, *, required: bool = False) -> dict[str, Any]:
    """The request body of a command."""
    return {"required": required, "content": {"application/json": {"schema": command(parameters, required=required)}}}
