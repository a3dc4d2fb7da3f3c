"""Testing upstreams with a real `nginx -t`, while the file that nginx includes stays as it is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gateway.errors import GatewayRefused, GatewayUnreachable
from gateway.feeders.nginx_trial import Trial
from gateway.settings.nginx import NginxSpec
from tests.servers.fixtures import made
from tests.servers.nginx import Nginx

pytestmark = pytest.mark.real
GOOD, BAD = "upstream cart { server 127.0.0.1:1; }\n", "upstream cart { server 127.0.0.1:1 wieght=1; }\n"


class Site:
    """A configuration in a folder; nginx is never started with it."""

    def __init__(self, folder: Path) -> None:
        self.program = made(Nginx).program  # skips, or fails in CI, without it
        self.folder = folder
        self.file = folder / "unit" / "upstreams.conf"
        self.file.parent.mkdir()
        self.file.write_text(GOOD)
        self.main("include unit/upstreams.conf;")

    def main(self, inside: str) -> None:
        (self.folder / "temp").mkdir(exist_ok=True)
        temp = "".join(
            f"{kind}_temp_path {self.folder}/temp/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"pid {self.folder}/nginx.pid;\nerror_log {self.folder}/error.log;\nevents {{}}\nhttp {{\n{temp}access_log off;\n{inside}\n"
            f"server {{ listen unix:{self.folder}/http.sock; location / {{ proxy_pass http://cart; }} }}\n}}\n"
        )

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def test(self, text: str) -> None:
        spec = NginxSpec(name="front", conf=str(self.folder / "nginx.conf"), file=str(self.file), nginx=(self.program,))
        asyncio.run(Trial(spec).test(text))

    def leftovers(self) -> list[str]:
        return [path.name for path in self.folder.rglob(".unit-gateway*")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def check(site: Site) -> None:
    """Good is taken, bad is not, and the file stays as it is."""
    site.test(GOOD)
    with pytest.raises(GatewayRefused, match='invalid parameter "wieght=1"') as refused:
        site.test(BAD)
    assert f"in {site.file}:1" in str(refused.value), "the file is named, not what stood for it"
    assert site.leftovers() == []


@pytest.mark.parametrize(
    "include",
    [
        "include unit/upstreams.conf;",
        "include  'unit/upstreams.conf' ;",
        "include unit/*.conf;",
        'include "unit/up*.conf"; # include other;',
        "#include unit/none.conf;\ninclude\n\tunit/upstreams.conf\n;",
        "log_format x '{ include nonsense; }'; include unit/upstreams.conf;",
    ],
)
def test_the_candidate_stands_for_the_file_however_it_is_included(site: Site, include: str) -> None:
    site.main(include)
    check(site)
    assert site.file.read_text() == GOOD


def test_a_file_that_is_included_by_an_included_file_is_found(site: Site) -> None:
    site.main("include conf.d/*.conf;")
    site.write("conf.d/a.conf", "map $host $first { default 1; }\n")
    site.write("conf.d/b.conf", "include sites/b.conf;")
    site.write("conf.d/c.conf", "map $host $last { default $first; }\n")
    site.write("sites/b.conf", f"include {site.file};")
    check(site)


def test_links_are_followed(site: Site) -> None:
    site.main("include enabled/*;")
    site.write("available", "include link.conf;")
    site.write("enabled/x", "")
    (site.folder / "enabled" / "site").symlink_to("../available")
    (site.folder / "link.conf").symlink_to("unit/upstreams.conf")
    check(site)


def test_a_file_that_is_not_there_yet_is_tested_too(site: Site) -> None:
    site.file.unlink()
    check(site)
    site.main("include unit/*.conf;")
    check(site)
    assert not site.file.exists()


def test_a_configuration_without_the_file_is_refused(site: Site) -> None:
    site.main("upstream cart { server 127.0.0.1:1; } # include unit/upstreams.conf;")
    with pytest.raises(GatewayRefused, match="does not include"):
        site.test(GOOD)
    assert site.leftovers() == []


def test_files_that_include_each_other_are_nginx_s_to_complain_about(site: Site) -> None:
    site.main("include unit/upstreams.conf; include a.conf;")
    site.write("a.conf", "include b.conf;")
    site.write("b.conf", "include a.conf;")
    with pytest.raises(GatewayRefused):
        site.test(GOOD)


def test_a_main_file_that_is_not_there_is_refused(site: Site) -> None:
    (site.folder / "nginx.conf").unlink()
    with pytest.raises(GatewayRefused, match=r"nginx\.conf"):
        site.test(GOOD)


def test_nginx_that_is_not_installed_is_refused(site: Site) -> None:
    spec = NginxSpec(name="front", conf=str(site.folder / "nginx.conf"), file=str(site.file), nginx=("/nowhere/nginx",))
    with pytest.raises(GatewayRefused, match="cannot run /nowhere/nginx"):
        asyncio.run(Trial(spec).test(GOOD))
    assert site.leftovers() == []


def test_a_test_that_hangs_is_ended(site: Site) -> None:
    hanging = ("/bin/sh", "-c", "exec sleep 1000")
    spec = NginxSpec(
        name="front", conf=str(site.folder / "nginx.conf"), file=str(site.file), nginx=hanging, reload_seconds=0.1
    )
    with pytest.raises(GatewayUnreachable, match="takes longer than"):
        asyncio.run(Trial(spec).test(GOOD))


def test_a_swap_replaces_the_file_at_once_and_follows_a_link(site: Site) -> None:
    link = site.folder / "link.conf"
    link.symlink_to(site.file)
    before = os.stat(site.file).st_ino
    Trial(NginxSpec(name="front", file=str(link))).swap("new\n")
    assert link.is_symlink()
    assert site.file.read_text() == "new\n"
    assert os.stat(site.file).st_ino != before
    assert os.stat(site.file).st_mode & 0o777 == 0o644
