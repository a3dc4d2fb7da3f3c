"""Who may send orders: is an address this host's own?"""

from __future__ import annotations

import ipaddress
import socket


def is_local(address: str) -> bool:
    """It is a loopback address or one that this host has. False for what is no address, as a unix socket's peer."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or _is_own(str(ip), socket.AF_INET if ip.version == 4 else socket.AF_INET6)


def _is_own(address: str, family: int) -> bool:
    # The kernel answers own addresses from themselves. (Binding to it would not tell: net.ipv4.ip_nonlocal_bind.)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:  # connecting it sends nothing
        try:
            probe.connect((address, 9))
        except OSError:
            return False
        return bool(probe.getsockname()[0] == address)
