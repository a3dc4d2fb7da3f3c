"""The real registry servers, as child processes on free ports of 127.0.0.1, and a proxy that breaks their connections.

For tests and for benches: nothing here needs pytest but `fixtures`.
"""

from .certificates import Certificates, write_certificates
from .consul import Consul
from .etcd import Etcd, EtcdCluster
from .proxy import Proxy
from .redis import Redis
from .server import MissingProgram, NotReady, Server
from .zookeeper import ZooKeeper

__all__ = [
    "Certificates",
    "Consul",
    "Etcd",
    "EtcdCluster",
    "MissingProgram",
    "NotReady",
    "Proxy",
    "Redis",
    "Server",
    "ZooKeeper",
    "write_certificates",
]
