"""The backend for etcd v3."""

from .backend import EtcdBackend

__all__ = ["EtcdBackend"]
