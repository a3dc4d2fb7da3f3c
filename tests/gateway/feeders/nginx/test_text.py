"""From pools to the file that nginx includes, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import GatewayRefused
from gateway.feeders.nginx_text import Line, Lines, lines_of, own_template, parse, render, unfit
from gateway.model import Pool, Server, Standing
from gateway.settings.nginx import NginxSpec

STEPS = (25, 50, 100)
A = Server(service="cart", instance="n1/a", generation=7, address="10.0.0.1", port=80, weight=100, full_weight=100)
B = replace(A, instance="n2/b", address="10.0.0.2", zone="west")
TEMPLATE = own_template(NginxSpec(name="front"))


def weights(*servers: Server) -> dict[str, int]:
    return {line.instance: line.weight for line in lines_of(Pool("cart", 1, "e", servers), STEPS)}


def body(services: dict[str, Lines], template: str = TEMPLATE) -> list[str]:
    rows = render(services, template, "{service}").splitlines()
    return [row.strip() for row in rows if not row.startswith("#") and row.strip()]


@pytest.mark.parametrize(
    ("percent", "step"), [(1, 25), (24, 25), (25, 25), (49, 25), (50, 50), (99, 50), (100, 100), (150, 100)]
)
def test_a_share_becomes_the_step_that_it_has_reached_and_never_nothing(percent: int, step: int) -> None:
    of = weights(A, replace(B, weight=percent))
    assert of["n2/b"] * 100 == step * of["n1/a"]


def test_weights_keep_the_ratio_of_full_weights_and_are_as_small_as_can_be() -> None:
    assert weights(A, B) == {"n1/a": 1, "n2/b": 1}
    assert weights(replace(A, weight=60000, full_weight=60000), replace(B, weight=30000, full_weight=30000)) == {
        "n1/a": 2,
        "n2/b": 1,
    }
    assert weights(replace(A, weight=1, full_weight=1), replace(B, weight=25, full_weight=100)) == {
        "n1/a": 1,
        "n2/b": 25,
    }


def test_who_drains_is_left_out() -> None:
    assert weights(A, replace(B, standing=Standing.DRAINING, weight=0)) == {"n1/a": 1}
    assert weights(replace(A, standing=Standing.DRAINING, weight=0)) == {}


def test_the_own_rendering_is_what_nginx_is_to_read() -> None:
    lines = lines_of(Pool("cart", 1, "e", (A, B)), STEPS)
    assert body({"cart": lines, "a:b": ()}) == [
        "upstream a_b {",
        "zone a_b 64k;",
        "least_conn;",
        "server 127.0.0.1:1 weight=1 max_fails=1 fail_timeout=5s down;",
        "keepalive 32;",
        "keepalive_timeout 4s;",
        "}",
        "upstream cart {",
        "zone cart 64k;",
        "least_conn;",
        "server 10.0.0.1:80 weight=1 max_fails=1 fail_timeout=5s;",
        "server 10.0.0.2:80 weight=1 max_fails=1 fail_timeout=5s;",
        "keepalive 32;",
        "keepalive_timeout 4s;",
        "}",
    ]


def test_what_the_file_was_made_of_is_read_back() -> None:
    lines = lines_of(Pool("cart", 1, "e", (A, replace(B, instance='n2/"ü\n#', weight=50))), STEPS)
    services = {"cart": lines, "empty": ()}
    assert parse(render(services, TEMPLATE, "{service}")) == services


@pytest.mark.parametrize(
    "text", ["", "upstream cart { server 10.0.0.1:80; }", "#= nonsense", "#= 7", '#= ["cart", 1]', "#= {}", "#= []"]
)
def test_a_file_of_somebody_else_says_nothing(text: str) -> None:
    assert all(lines == () for lines in parse(text).values())


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert Line("a", 1, "fd00::1", 80, 1).place == "[fd00::1]:80"


@pytest.mark.parametrize("address", ["10.0.0.1; include /etc/passwd", "a b", "", "x" * 254, "{", "10.0.0.1\n"])
def test_an_address_that_could_be_a_directive_is_unfit(address: str) -> None:
    assert "no address" in unfit("cart", (Line("a", 1, address, 80, 1),))


def test_a_port_a_service_and_a_name_may_be_unfit() -> None:
    assert "no address" in unfit("cart", (Line("a", 1, "10.0.0.1", 0, 1),))
    assert "no name" in unfit("cart {", ())
    assert "too long" in unfit("cart", (Line("a" * 4000, 1, "10.0.0.1", 80, 1),))
    assert unfit("cart", (Line("a", 1, "10.0.0.1", 80, 1),)) == ""


def test_a_template_of_a_user_has_words_of_the_service_and_of_the_server() -> None:
    template = """\
# mine
{{each service}}
upstream {{ upstream }} { # {{service}} {{zone_size}}
  {{ each server }}
  server {{place}} weight={{weight}} {{state}}; # {{instance}} {{generation}} {{zone}} $upstream_addr
  {{end}}
}
{{end}}
map $x $y { default 1; }
"""
    rows = render({"cart": (Line("n/a;}", 7, "10.0.0.1", 80, 3, "west"),), "none": ()}, template, "to-{service}")
    assert rows.splitlines()[-8:] == [
        "# mine",
        "upstream to-cart { # cart 64k",
        "  server 10.0.0.1:80 weight=3; # n/a__ 7 west $upstream_addr",
        "}",
        "upstream to-none { # none 64k",
        "  server 127.0.0.1:1 weight=1 down; # none 0  $upstream_addr",
        "}",
        "map $x $y { default 1; }",
    ]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{each service}}\n", "line 1 begins a block"),
        ("{{each service}}\n{{each server}}\n{{end}}\n", "line 1 begins a block"),
        ("{{each server}}\n{{end}}", "line 1: {{each server}} is not known outside of"),
        ("{{each service}}\n{{place}}\n{{end}}", "line 2: {{place}} is not known for a service"),
        ("\n{{upstream}}", "line 2: {{upstream}} is not known outside of"),
        ("{{end}}", "line 1: {{end}} is not known"),
    ],
)
def test_a_wrong_template_is_told_with_its_line(template: str, words: str) -> None:
    with pytest.raises(GatewayRefused) as refused:
        render({"cart": ()}, template, "{service}")
    assert words in str(refused.value)


def test_a_zone_is_large_enough_for_its_servers() -> None:
    lines = tuple(Line(f"a{number}", 1, "10.0.0.1", number + 1, 1) for number in range(1000))
    assert f"zone cart {64 + 64 * (1000 // 32)}k;" in body({"cart": lines})
