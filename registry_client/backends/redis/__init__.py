"""The backend for Redis."""

from .backend import RedisBackend

__all__ = ["RedisBackend"]
