"""How many registered units of a host probes may take out of traffic at once.

When most of them fail at the same time, the probes or the network are more likely to be at fault than the units, and
taking them all out would make an outage of it. Commands, and facts such as a dead process, are never counted or held.
"""

from __future__ import annotations

ALWAYS_ALLOWED = 3  # units: on a small host a share says nothing


def allowed(registered: int, percent: float) -> int:
    """How many of `registered` units may be out because of probes."""
    return max(ALWAYS_ALLOWED, int(registered * percent / 100))


def may_lose_one_more(out: int, registered: int, percent: float) -> bool:
    """Whether one more may go when `out` of `registered` units (these included) are out because of probes."""
    return out < allowed(registered, percent)


def held_reason(role: str, percent: float) -> str:
    """Why a unit whose probe fails is left as it is; `role` is "readiness" or "liveness"."""
    kept = "withdrawn" if role == "readiness" else "restarted"
    return (
        f"its {role} probe fails; not {kept}: more than {percent:g} % of this host's units would be out, "
        f"so the probe or the network is suspected"
    )
