"""What can go wrong in the control center, by who must act."""

from __future__ import annotations


class CenterError(Exception):
    """Anything that the control center says by itself."""


class BadRequest(CenterError):
    """The caller asked for something that cannot be; the message says what to do. `code` is the problem's."""

    def __init__(self, message: str, code: str = "bad_request", status: int = 400, **more: object) -> None:
        super().__init__(message)
        self.code, self.status, self.more = code, status, more


class ServiceBusy(CenterError):
    """A service has an open operation already."""

    def __init__(self, service: str, operation: str) -> None:
        super().__init__(f"cannot begin: {service} has the open operation {operation}; wait for it, or abort it")
        self.service, self.operation = service, operation


class CommandDiffers(CenterError):
    """A command id came again with another content."""

    def __init__(self, command_id: str) -> None:
        super().__init__(f"the command {command_id} asked for something else before; use another id")
        self.command_id = command_id


class Superseded(CenterError):
    """Another center leads: this one must stop to act."""

    def __init__(self, ours: int, theirs: int) -> None:
        super().__init__(f"another control center leads (epoch {theirs}, ours was {ours})")
        self.ours, self.theirs = ours, theirs


class StoreError(CenterError):
    """The store cannot be opened, read or written."""


class NodeUnreachable(CenterError):
    """A node gave no answer that counts; worth another try. `may_have_counted`: the command may have arrived."""

    def __init__(self, node: str, reason: str, *, may_have_counted: bool = True) -> None:
        super().__init__(f"cannot reach {node}: {reason}")
        self.node, self.reason, self.may_have_counted = node, reason, may_have_counted


class NodeRefused(CenterError):
    """A node's definite no. `status` is HTTP's, `code` the problem's member (`generation_moved`, ...)."""

    def __init__(self, node: str, status: int, code: str, detail: str) -> None:
        super().__init__(f"{node} refused: {detail}")
        self.node, self.status, self.code, self.detail = node, status, code, detail
