"""Roles, rights, and how a caller is recognised."""

from __future__ import annotations

import pytest

from supervisor.core.access import GRANTS, Principal, Right, Role, by_certificate, by_token, refuses, token_hash

ANN = Principal("ann", Role.ADMIN, token_sha256=(token_hash("a1"), token_hash("a2")), certificates=("ann.example",))
BOB = Principal("bob", Role.READ, token_sha256=(token_hash("b"),), certificates=("bob.example", "spiffe://x/bob"))


@pytest.mark.parametrize(
    ("role", "rights"),
    [
        (Role.READ, {Right.READ}),
        (Role.REPORT, {Right.REPORT}),
        (Role.NODE, {Right.NODE}),
        (Role.OPERATE, {Right.READ, Right.OPERATE}),
        (Role.ADMIN, set(Right)),
    ],
)
def test_a_role_gives_its_rights_and_no_other(role: Role, rights: set[Right]) -> None:
    principal = Principal("p", role)
    assert {right for right in Right if not refuses(principal, right)} == rights == GRANTS[role]
    for right in set(Right) - rights:
        assert refuses(principal, right).startswith(f"p has the role {role}, which may not ")


def test_a_token_is_found_by_any_of_its_hashes_and_nothing_like_it_is() -> None:
    for token, found in (
        ("a1", ANN),
        ("a2", ANN),
        ("b", BOB),
        ("", None),
        ("B", None),
        (token_hash("a1"), None),
        ("ü", None),
    ):
        assert by_token((ANN, BOB), token) is found
    assert by_token((), "a1") is None


def test_what_was_no_text_is_no_token_either() -> None:
    assert by_token((ANN,), "\udc80") is None


def test_a_certificate_is_found_by_any_of_its_names() -> None:
    assert by_certificate((ANN, BOB), ["x", "spiffe://x/bob"]) is BOB
    assert by_certificate((ANN, BOB), ["ann.example"]) is ANN
    assert by_certificate((ANN, BOB), ["*.example", "ANN.example", ""]) is None
    assert by_certificate((ANN, BOB), []) is None


@pytest.mark.parametrize(
    ("patterns", "services", "may"),
    [
        (("*",), ["cart", None], True),
        (("cart",), ["cart"], True),
        (("cart*",), ["cart", "cart-eu"], True),
        (("cart*",), ["cart", "search"], False),
        (("cart*", "search"), ["cart", "search"], True),
        (("cart",), ["Cart"], False),
        (("cart",), [None], False),
        (("?*",), [None], False),
        ((), ["cart"], False),
        (("cart",), [], True),
    ],
)
def test_an_operator_may_command_the_services_that_its_patterns_match(
    patterns: tuple[str, ...], services: list[str | None], may: bool
) -> None:
    assert (refuses(Principal("p", Role.OPERATE, patterns), Right.OPERATE, services) == "") is may


def test_services_limit_commands_only() -> None:
    operator = Principal("p", Role.OPERATE, ("cart",))
    assert refuses(operator, Right.READ, ["search"]) == ""
    assert "units of search: its services are cart" in refuses(operator, Right.OPERATE, ["search"])
    assert "units without a service" in refuses(operator, Right.OPERATE, [None])


def test_a_node_speaks_for_the_nodes_that_its_patterns_match() -> None:
    node = Principal("p", Role.NODE, nodes=("web-*",))
    assert refuses(node, Right.NODE, node="web-7") == "" == refuses(node, Right.NODE)
    assert "may not speak for the node db-1" in refuses(node, Right.NODE, node="db-1")
