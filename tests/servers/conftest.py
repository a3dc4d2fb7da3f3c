"""The servers, for the tests of the servers themselves."""

from tests.servers.fixtures import (
    consul,
    etcd,
    namespace,
    open_proxy,
    redis_server,
    share_server,
    start_server,
    zookeeper,
)

__all__ = [
    "consul",
    "etcd",
    "namespace",
    "open_proxy",
    "redis_server",
    "share_server",
    "start_server",
    "zookeeper",
]
