"""The database that several centers share."""

from tests.servers.fixtures import postgres, share_server

__all__ = ["postgres", "share_server"]
