"""Routes by name: few names, whatever is asked for."""

from __future__ import annotations

import pytest

from supervisor.control.api import ROUTES
from supervisor.routes import OTHER, name_of, templates_of


def test_a_pattern_becomes_a_path_with_parameters() -> None:
    assert templates_of(r"/v1/units/(?P<unit>[^/]+)/why") == ["/v1/units/{unit}/why"]
    assert templates_of(r"/openapi\.json") == ["/openapi.json"]


def test_a_choice_of_words_becomes_a_path_for_each() -> None:
    assert templates_of(r"/v1/units/(?P<unit>[^/]+)/(start|stop)") == [
        "/v1/units/{unit}/start",
        "/v1/units/{unit}/stop",
    ]


def _named(path: str) -> str:
    return name_of(path, next((route.pattern.pattern for route in ROUTES if route.pattern.fullmatch(path)), ""))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/units", "/v1/units"), ("/v1/units/web%3A0", "/v1/units/{unit}"), ("/v1/units/a/restart", "/v1/units/{unit}/restart"),
        ("/v1/units/a/disable", "/v1/units/{unit}/disable"), ("/v1/operations/op-1/abort", "/v1/operations/{id}/abort"),
        ("/v1/registry/services/cart/a/b", "/v1/registry/..."), ("/v1/units/a/nonsense", OTHER), ("/", OTHER), ("", OTHER),
    ],
)  # fmt: skip
def test_a_request_counts_for_its_route(path: str, name: str) -> None:
    """What callers make up does not become a name."""
    assert _named(path) == name
