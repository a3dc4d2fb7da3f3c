"""What can go wrong between unit-gateway and a gateway, by who must act."""

from __future__ import annotations


class GatewayError(Exception):
    """Base of all; the message reads "cannot <verb> <thing>: <reason>"."""


class GatewayUnreachable(GatewayError):
    """The gateway does not answer, or is being restarted: try again."""


class GatewayRefused(GatewayError):
    """The gateway does not take what it is told, and will not: the operator must act. It keeps what it had."""
