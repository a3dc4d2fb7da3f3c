"""Commands: everything that is looked at before one counts, in an order that repetitions and late ones can rely on.

Who sent it has been found out. Then: may they command these units; is the command known (then it gets its answer
again); does it come from a control center that has been replaced; is it too late; does the unit exist, and is it still
the one that was meant. Only then is it written down and answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from ..agents.operations import Operations
from ..agents.orders import Orders, deadline_of
from ..agents.view import View
from ..core.access import Right, refuses
from ..errors import WireError
from ..host.clock import iso, wall
from ..host.http_message import Request, Response
from ..host.journal import Journal
from ..wire import Command, Operation, decode_command, same_request, to_json
from .answers import Refused, accepted, json_answer
from .applied import Applied
from .audit import REPEATED
from .epochs import Epochs

if TYPE_CHECKING:
    from .api import Daemon

_APPLY = "apply"


class Commands:
    """Takes commands."""

    def __init__(self, daemon: Daemon, orders: Orders, operations: Operations, view: View, journal: Journal) -> None:
        self._daemon, self._orders, self._operations, self._view = daemon, orders, operations, view
        self._epochs, self._applied = Epochs(journal), Applied(journal)

    def give(self, request: Request, pattern: str, verb: str) -> Response:
        """A verb for units."""
        command = decode_command(request.body)
        self._check_services(request, pattern, verb)
        asked = same_request(verb, pattern, command)
        known = self._known(command, asked)
        if known is not None:
            return _again(accepted(known))
        self._check_time(command)
        names = self._orders.select(pattern.split(","))
        self._check_generation(command, names)
        if command.command_id is None:  # one for all units that it touches, for whoever follows it; nobody repeats it
            command, asked = replace(command, command_id=uuid4().hex), ""
        return accepted(self._orders.give(verb, names, command, asked))

    def apply(self, request: Request) -> Response:
        """The files become what is wanted."""
        command = decode_command(request.body)
        _without_generation(command)
        asked = same_request(_APPLY, "", command)
        if self._known_apply(command, asked):
            assert command.command_id is not None
            items = self._applied.items(command.command_id)
            return _again(_applied_answer(items, self._operations.of_command(command.command_id)))
        self._check_time(command)
        if command.command_id is None:
            planned, operations = self._daemon.apply(command)
            return _applied_answer([to_json(item) for item in planned], operations)
        # Written down before its effect: whoever asks again after a crash in between must not be told that it is new.
        self._applied.keep(command.command_id, asked, [to_json(item) for item in self._daemon.plan()])
        try:
            with self._orders.asked(asked):
                planned, operations = self._daemon.apply(command)
        except BaseException:
            self._applied.forget(command.command_id)
            raise
        items = [to_json(item) for item in planned]
        self._applied.keep(command.command_id, asked, items)
        return _applied_answer(items, operations)

    def shutdown(self, request: Request) -> Response:
        """All units are stopped, then the daemon ends."""
        command = decode_command(request.body)
        _without_generation(command)
        self._epochs.check(command)
        _check_deadline(command)
        self._daemon.shut_down(command.reason or f"asked for by {command.issued_by or 'the control API'}")
        return json_answer(202, {"detail": "all units are being stopped; unitd ends after them"})

    def remember(self, request: Request, pattern: str, verb: str) -> Response:
        """Whether units come up with the daemon."""
        self._check_services(request, pattern, verb)
        names = self._orders.select(pattern.split(","))
        self._orders.remember(names, up=verb == "enable")
        return json_answer(200, {"units": names})

    def abort(self, request: Request, operation: Operation) -> Response:
        """Call an operation off."""
        spec = self._orders.specs.get(operation.unit)
        self._check_right(request, [spec.service.name if spec and spec.service else None])
        refused = self._orders.abort(operation)
        if refused:
            raise Refused("busy", f"cannot abort {operation.id}: {refused}")
        return json_answer(200, to_json(operation))

    # What is looked at before.

    def _check_services(self, request: Request, pattern: str, verb: str) -> None:
        """Raises Refused, and UnknownUnit for a caller who may not command everything."""
        assert request.caller is not None
        if "*" in request.caller.services:
            return
        names = self._orders.select(pattern.split(","))
        touched = [*names, *self._orders.stopped_with(names)] if verb == "stop" else names
        specs = self._orders.specs
        services = [spec.service.name if (spec := specs[name]).service else None for name in touched]
        self._check_right(request, list(dict.fromkeys(services)))

    def _check_right(self, request: Request, services: Sequence[str | None]) -> None:
        assert request.caller is not None
        refused = refuses(request.caller, Right.OPERATE, services)
        if refused:
            raise Refused("forbidden", refused)

    def _known(self, command: Command, asked: str) -> list[Operation] | None:
        """What the command has made already. Raises Refused when it said something else then."""
        if command.command_id is None:
            return None
        known = self._operations.known(command.command_id)
        if known is None and self._applied.request_of(command.command_id) is None:
            return None
        if known is None or self._operations.request_of(command.command_id) != asked:
            raise _replayed(command)
        self._epochs.note(command)
        return known

    def _known_apply(self, command: Command, asked: str) -> bool:
        if command.command_id is None:
            return False
        before = self._applied.request_of(command.command_id)
        if before is None and self._operations.known(command.command_id) is None:
            return False
        if before != asked:
            raise _replayed(command)
        self._epochs.note(command)
        return True

    def _check_time(self, command: Command) -> None:
        """New commands only, of the center that leads, before their deadline. Raises Refused, WireError."""
        if self._daemon.is_stopping:
            raise Refused("shutting_down", "unitd is shutting down and takes no new commands")
        self._epochs.check(command)
        _check_deadline(command)

    def _check_generation(self, command: Command, names: Sequence[str]) -> None:
        if command.expected_generation is None:
            return
        if len(names) != 1:
            raise WireError(f"cannot expect a generation of {len(names)} units: name one")
        generation = self._view.status(names[0]).generation
        if generation != command.expected_generation:
            raise Refused(
                "generation_moved",
                f"{names[0]} has generation {generation}, not {command.expected_generation}: look at it again",
                generation=generation,
            )


def _check_deadline(command: Command) -> None:
    deadline = deadline_of(command)
    if deadline is not None and wall() > deadline:
        raise Refused("deadline_passed", f"the deadline {command.deadline} has passed: here it is {iso()}")


def _without_generation(command: Command) -> None:
    if command.expected_generation is not None:
        raise WireError("cannot expect a generation here: name one unit")


def _replayed(command: Command) -> Refused:
    detail = f"the command {command.command_id} asked for something else before; use another id"
    return Refused("replayed", detail)


def _again(response: Response) -> Response:
    response.headers = (*response.headers, REPEATED)
    return response


def _applied_answer(items: list[dict[str, object]], operations: Sequence[Operation]) -> Response:
    return json_answer(202, {"items": items, "operations": [to_json(item) for item in operations]})
