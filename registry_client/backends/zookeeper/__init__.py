"""The backend for ZooKeeper."""

from .backend import ZooKeeperBackend

__all__ = ["ZooKeeperBackend"]
