"""The backend for Consul."""

from .backend import ConsulBackend

__all__ = ["ConsulBackend"]
