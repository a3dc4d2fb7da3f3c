"""The registry of another unitd, over HTTP: it keeps nothing across a restart."""

from __future__ import annotations

import sys

from .asking import ask
from .server import Server


class Unitd(Server):
    """A unitd without units, for the sake of its embedded registry."""

    install_hint = "pip install unitd"

    def __init__(self) -> None:
        super().__init__(("http",))

    @property
    def port(self) -> int:
        """The port of clients."""
        return self.ports["http"]

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        """It tells none over its registry."""
        return ""

    def answers(self) -> bool:
        """It lists its services."""
        status, _ = ask(self.port, "GET", "/v1/registry/services")
        return status == 200

    def command(self) -> list[str]:
        """Write the configuration and name it."""
        path = self.folder / "unitd.toml"
        lines = ['node = "registry"', f'daemon.socket = "{self.folder}/s"', f'daemon.state_dir = "{self.data}"']
        lines += [f'daemon.log_dir = "{self.folder}"', 'daemon.socket_group = ""', 'daemon.cgroup = "off"']
        path.write_text("\n".join([*lines, f'http.listen = "127.0.0.1:{self.port}"', ""]))
        return [sys.executable, "-c", "import sys; from supervisor.boot import main; sys.exit(main())", "-c", str(path)]
