"""The configuration in docs/how-to/nginx.md is one that nginx takes, and it does what the page says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.feeders.nginx_text import Line, render
from tests.servers.fixtures import StartServer, start_server
from tests.servers.nginx import Nginx

from .running import Running, Unit, ask, pool, read_spec

__all__ = ["start_server"]

pytestmark = pytest.mark.real
PAGE = (Path(__file__).parents[4] / "docs" / "how-to" / "nginx.md").read_text()
CONFIGURATION, TEMPLATE = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
(SETTINGS,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


class Documented(Nginx):
    """With the configuration of the page, in a folder of its own."""

    def here(self, text: str) -> str:
        for folder in ("/etc/nginx", "/var/log/nginx", "/run"):
            text = text.replace(f"{folder}/", f"{self.folder}/")
        return text

    def command(self) -> list[str]:
        command = super().command()  # which makes the folders
        temp = "".join(
            f"    {kind}_temp_path {self.folder}/temp/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "root" if os.geteuid() == 0 else "nobody"
        text = self.here(CONFIGURATION).replace("user www-data;", f"daemon off;\nuser {user};")
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self.port};").replace("http {\n", f"http {{\n{temp}", 1)
        self.conf.write_text(text)
        self.upstreams.rename(self.folder / "unit-upstreams.conf")
        return command


@pytest.fixture
def nginx(start_server: StartServer) -> Documented:
    return start_server(Documented)


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Unit]:
    started = Unit("a", tmp_path)
    yield started
    started.process.end()


def test_the_page_s_configuration_is_fed_by_the_page_s_settings(nginx: Documented, unit: Unit) -> None:
    feeder = Running(read_spec(nginx.here(SETTINGS)))
    try:
        assert ask(nginx.port) == (503, "no server of this service could be reached\n")
        feeder.apply(pool(unit.server()), full=True)
        assert ask(nginx.port) == (200, "a")
        unit.process.end()
        assert ask(nginx.port) == (503, "no server of this service could be reached\n")
        found = feeder.found(len)
        assert [each.instance for each in found] == ["a"]
        assert feeder.look().views[0].total == 2
    finally:
        feeder.close()


def test_the_page_s_template_is_one_that_nginx_takes(nginx: Documented, unit: Unit, tmp_path: Path) -> None:
    template = tmp_path / "upstreams.template"
    template.write_text(TEMPLATE)
    feeder = Running(read_spec(nginx.here(SETTINGS) + f'template = "{template}"\n'))
    try:
        feeder.apply(pool(unit.server()), full=True)
        assert ask(nginx.port) == (200, "a")
        feeder.apply(pool())
        assert ask(nginx.port)[0] == 503
    finally:
        feeder.close()


def test_every_word_of_a_template_is_on_the_page() -> None:
    words = set(re.findall(r"\{\{([a-z_ ]+)\}\}", PAGE))
    known = {"each service", "each server", "end", "service", "upstream", "zone_size", "place", "weight", "state"}
    assert words == known | {"instance", "generation", "zone"}
    inside = "\n".join(f"# {{{{{word}}}}}" for word in sorted(words) if word != "end" and not word.startswith("each"))
    template = f"{{{{each service}}}}\n{{{{each server}}}}\n{inside}\n{{{{end}}}}\n{{{{end}}}}"
    assert "{{" not in render({"cart": (Line("a", 1, "10.0.0.1", 80, 1),)}, template, "{service}")
