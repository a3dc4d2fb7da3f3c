"""HAProxy, told through its runtime API (2.4 and newer): servers in slots, weights, drains; no reload."""

from __future__ import annotations

from gateway.settings.haproxy import HaproxySpec

from .feeder import HaproxyFeeder

__all__ = ["HaproxyFeeder", "make"]


def make(spec: HaproxySpec) -> HaproxyFeeder:
    """The feeder of this HAProxy."""
    return HaproxyFeeder(spec)
