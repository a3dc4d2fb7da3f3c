"""The control API: requests become orders, what is known becomes answers. The same on the unix socket and on TCP.

It decodes, asks and encodes; what an order means is `agents.orders`'s, who may give it `core.access`'s.
"""

from __future__ import annotations

from .answers import config_errors
from .api import Control, Daemon
from .audit import Auditor, open_audit

__all__ = ["Auditor", "Control", "Daemon", "config_errors", "open_audit"]
