"""The real registry servers, as child processes on free ports of 127.0.0.1, and a proxy that breaks their connections.

For tests and for benches: nothing here needs pytest but `fixtures`.
"""

from .certificates import Certificates, write_certificates
from .consul import Consul
from .consul_cluster import ConsulCluster, ConsulMember
from .etcd import Etcd, EtcdCluster
from .postgres import Postgres
from .proxy import Proxy
from .redis import Redis
from .server import MissingProgram, NotReady, Server
from .unitd import Unitd
from .zookeeper import ZooKeeper
from .zookeeper_ensemble import ZooKeeperEnsemble, ZooKeeperMember

__all__ = [
    "Certificates",
    "Consul",
    "ConsulCluster",
    "ConsulMember",
    "Etcd",
    "EtcdCluster",
    "MissingProgram",
    "NotReady",
    "Postgres",
    "Proxy",
    "Redis",
    "Server",
    "Unitd",
    "ZooKeeper",
    "ZooKeeperEnsemble",
    "ZooKeeperMember",
    "write_certificates",
]
