"""Every route, asked without, with a wrong and with a weaker credential; and what each role may do."""

from __future__ import annotations

import pytest

from supervisor.control.api import ROUTES
from supervisor.core.access import GRANTS, Right, Role
from tests.end_to_end.secure.scene import TOKENS, Authority, Client, Secure

PATHS = {
    "/v1/units": "GET", "/v1/units/plain": "GET", "/v1/units/plain/why": "GET", "/v1/units/plain/logs": "GET",
    "/v1/units/nosuch/restart": "POST", "/v1/units/nosuch/enable": "POST", "/v1/operations": "GET",
    "/v1/operations/op-none": "GET", "/v1/operations/op-none/abort": "POST", "/v1/events": "GET",
    "/v1/config/plan": "POST", "/v1/config/apply": "POST", "/v1/doctor": "GET", "/v1/shutdown": "POST",
    "/v1/node": "GET", "/metrics": "GET", "/openapi.json": "GET", "/healthz": "GET", "/readyz": "GET",
    "/v1/registry/services": "GET", "/v1/registry/services/cart": "GET", "/v1/registry/renew": "POST",
    "/v1/registry/services/cart/here%2Fcart": "DELETE",
}  # fmt: skip
OPEN = ("/healthz", "/readyz", "/openapi.json")
GUARDED = [path for path in PATHS if path not in OPEN]
ROLES = {"admin": Role.ADMIN, "operator": Role.OPERATE, "reader": Role.READ, "node": Role.NODE, "reporter": Role.REPORT}


def rights_of(path: str) -> set[Right]:
    """Any of them is enough."""
    if path.startswith("/v1/registry/"):
        return {Right.READ, Right.NODE, Right.REPORT} if PATHS[path] == "GET" else {Right.NODE}
    found = {route.right for route in ROUTES if route.method == PATHS[path] and route.pattern.fullmatch(path)}
    assert len(found) == 1, "one route answers it"
    return {right for right in found if right is not None}


def test_no_route_is_forgotten_here() -> None:
    for route in ROUTES:
        assert [path for path in PATHS if PATHS[path] == route.method and route.pattern.fullmatch(path)], route


@pytest.mark.parametrize("path", GUARDED)
def test_a_route_is_closed_without_a_credential_and_with_a_wrong_one(secure: Secure, path: str) -> None:
    if not path.startswith("/v1/registry/") and not any(route.pattern.fullmatch(path) for route in ROUTES):
        pytest.skip("this daemon has no such route")
    headers = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKENS['admin']}"}]
    headers += [{"Authorization": f"Bearer {TOKENS['admin']}x"}, {"Authorization": "Bearer "}]
    for shown in headers:
        answer = secure.client().ask(PATHS[path], path, {} if PATHS[path] == "POST" else None, **shown)
        assert (answer.status, answer.json["code"]) == (401, "unauthenticated"), (shown, answer)
        assert answer.headers["WWW-Authenticate"] == "Bearer"  # type: ignore[attr-defined]
        assert "token" not in answer.json["detail"].lower() or TOKENS["admin"] not in answer.json["detail"]


@pytest.mark.parametrize("path", [path for path in GUARDED if path != "/v1/shutdown"])
def test_a_route_answers_only_roles_that_have_its_right(secure: Secure, path: str) -> None:
    if not path.startswith("/v1/registry/") and not any(route.pattern.fullmatch(path) for route in ROUTES):
        pytest.skip("this daemon has no such route")
    rights = rights_of(path)
    for name, role in ROLES.items():
        if path == "/v1/registry/services/cart/here%2Fcart" and rights & GRANTS[role]:
            continue  # it would take a unit out
        answer = secure.client(name).ask(PATHS[path], path, {} if PATHS[path] == "POST" else None)
        if rights & GRANTS[role]:
            assert answer.status not in (401, 403), (name, answer)
        else:
            assert (answer.status, answer.json["code"]) == (403, "forbidden"), (name, answer)
            assert f"{name} has the role {role}" in answer.json["detail"]


@pytest.mark.parametrize("name", [name for name, role in ROLES.items() if role is not Role.ADMIN])
def test_only_an_admin_shuts_down(secure: Secure, name: str) -> None:
    assert secure.client(name).ask("POST", "/v1/shutdown").status == 403
    assert secure.client("admin").ask("GET", "/readyz").status == 200


def test_life_and_readiness_are_told_to_everybody(secure: Secure) -> None:
    for path in ("/healthz", "/readyz"):
        assert secure.client().ask("GET", path).status == 200
        assert Client(secure.port, secure.context(), "wrong").ask("GET", path).status == 200


def test_where_there_is_nothing_is_not_told_to_strangers(secure: Secure) -> None:
    assert secure.client().ask("GET", "/v1/nothing").status == 401
    assert secure.client().ask("PUT", "/v1/units").status == 401
    assert secure.client("reader").ask("GET", "/v1/nothing").json["code"] == "not_found"
    assert secure.client("reader").ask("PUT", "/v1/units").json["code"] == "method_not_allowed"


def test_a_web_page_cannot_command_even_with_a_credential(secure: Secure) -> None:
    answer = secure.client("admin").ask("POST", "/v1/units/plain/restart", {}, Origin="https://evil.example")
    assert (answer.status, answer.json["code"]) == (403, "forbidden")


def test_any_name_of_the_host_will_do(secure: Secure) -> None:
    assert secure.client("reader").ask("GET", "/v1/units", Host="web-7.example").status == 200


# Rights of services and nodes.


def test_an_operator_commands_only_units_of_its_services(secure: Secure) -> None:
    client = secure.client("cart-only")
    assert client.ask("POST", "/v1/units/cart/warm", {"parameters": {"jump": 100}}).status in (202, 400)
    for pattern, words in (
        ("plain", "units without a service"),
        ("search", "units of search"),
        ("cart,search", "units of search"),
        ("all", "may not command"),
        ("cart:*,pl*", "units without a service"),
    ):
        answer = client.ask("POST", f"/v1/units/{pattern}/restart", {})
        assert (answer.status, answer.json["code"]) == (403, "forbidden"), pattern
        assert words in answer.json["detail"]
        assert client.ask("POST", f"/v1/units/{pattern}/disable", {}).status == 403
    assert client.ask("POST", "/v1/units/nosuch/restart", {}).json["code"] == "unknown_unit"
    assert client.ask("GET", "/v1/units/search").status == 200, "looking is free"


def test_what_would_stop_others_units_as_well_is_refused(secure: Secure) -> None:
    """search depends on cart: to stop cart is to stop search."""
    answer = secure.client("cart-only").ask("POST", "/v1/units/cart/stop", {})
    assert answer.status == 403 and "units of search" in answer.json["detail"]


def test_an_operation_of_another_service_cannot_be_called_off(secure: Secure) -> None:
    made = secure.client("operator").ask("POST", "/v1/units/plain/signal", {"parameters": {"signal": "CONT"}}).json
    answer = secure.client("cart-only").ask("POST", f"/v1/operations/{made['id']}/abort")
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert secure.client("operator").ask("POST", f"/v1/operations/{made['id']}/abort").json["code"] == "busy"


def entry(node: str) -> dict[str, object]:
    return {
        "schema": 1, "service": "guest", "instance": f"{node}/guest", "node": node, "unit": "guest",
        "address": "10.0.0.9", "port": 80, "generation": 1, "status": "up", "weight": 1, "full_weight": 1,
        "started_at": "2026-11-24T00:00:00Z", "warmup_seconds": 0, "version": None, "zone": None, "metadata": {},
    }  # fmt: skip


def test_a_node_writes_only_its_own_entries(secure: Secure) -> None:
    own, other = entry("web-1"), entry("db-1")
    client = secure.client("web-nodes")
    path = "/v1/registry/services/guest/"
    body = {"entry": own, "ttl_seconds": 5}
    assert client.ask("PUT", path + "web-1%2Fguest", body).status == 200
    lease = {"service": "guest", "instance": "web-1/guest", "generation": 1}
    assert client.ask("POST", "/v1/registry/renew", {"leases": [lease]}).json["lost"] == []
    assert client.ask("GET", path + "web-1%2Fguest").status == 200
    refused = [
        client.ask("PUT", path + "db-1%2Fguest", {"entry": other, "ttl_seconds": 5}),
        client.ask("PUT", path + "web-1%2Fguest", {"entry": {**own, "node": "db-1"}, "ttl_seconds": 5}),
        client.ask("PATCH", path + "db-1%2Fguest", {"entry": other}),
        client.ask("DELETE", path + "here%2Fcart?generation=1"),
        client.ask("POST", "/v1/registry/renew", {"leases": [lease, {**lease, "instance": "db-1/guest"}]}),
    ]
    assert [(answer.status, answer.json["code"]) for answer in refused] == [(403, "forbidden")] * 5
    assert "db-1" in refused[0].json["detail"]
    assert client.ask("DELETE", path + "web-1%2Fguest?generation=1").status == 200


def test_a_gateway_writes_only_what_it_says_of_itself(secure: Secure) -> None:
    client, path = secure.client("reporter"), "/v1/registry/services/unit-gateway/"
    own = {**entry("reporter.edge"), "service": "unit-gateway", "instance": "reporter.edge/cart", "node": "reporter"}
    assert client.ask("PUT", path + "reporter.edge%2Fcart", {"entry": own, "ttl_seconds": 5}).status == 200
    lease = {"service": "unit-gateway", "instance": "reporter.edge/cart", "generation": 1}
    assert client.ask("POST", "/v1/registry/renew", {"leases": [lease]}).json["lost"] == []
    refused = [
        client.ask("PUT", path + "other.edge%2Fcart", {"entry": {**own, "node": "other"}, "ttl_seconds": 5}),
        client.ask("PUT", path + "reporter.edge%2Fcart", {"entry": {**own, "node": "other"}, "ttl_seconds": 5}),
        client.ask("DELETE", "/v1/registry/services/cart/reporter%2Fcart?generation=1"),
        client.ask("POST", "/v1/registry/renew", {"leases": [lease, {**lease, "service": "cart"}]}),
    ]
    assert [(answer.status, answer.json["code"]) for answer in refused] == [(403, "forbidden")] * 4
    assert client.ask("DELETE", path + "reporter.edge%2Fcart?generation=1").status == 200


# Certificates.


def test_a_client_certificate_is_a_credential_by_any_of_its_names(secure: Secure) -> None:
    for number, (identity, common_name) in enumerate(
        (
            ("center.example", None),
            ("other.example", "center.example"),
            ("center.example.evil", None),
            ("*.example", None),
        )
    ):
        shown = secure.authority.write(f"client{number}", identity, common_name=common_name)
        answer = secure.client(context=secure.context(shown)).ask("GET", "/v1/units")
        assert answer.status == (200 if "center.example" in (identity, common_name) else 401), identity


def test_a_certificate_that_no_entry_names_is_none(secure: Secure) -> None:
    shown = secure.authority.write("stranger", "stranger.example")
    answer = secure.client(context=secure.context(shown)).ask("GET", "/v1/units")
    assert answer.status == 401 and "stranger.example" in answer.json["detail"]


def test_a_token_counts_beside_a_certificate_that_nobody_knows(secure: Secure) -> None:
    shown = secure.authority.write("stranger2", "stranger.example")
    assert secure.client("reader", context=secure.context(shown)).ask("GET", "/v1/units").status == 200


def test_a_wrong_token_is_not_mended_by_a_good_certificate(secure: Secure) -> None:
    shown = secure.authority.write("center2", "center.example")
    assert Client(secure.port, secure.context(shown), "wrong").ask("GET", "/v1/units").status == 401


def test_a_certificate_of_another_authority_is_refused(secure: Secure) -> None:
    foreign = Authority(secure.host.folder / "foreign")
    shown = foreign.write("center", "center.example")
    with pytest.raises(OSError):  # in TLS 1.3 the client learns of it when it reads
        secure.client(context=secure.context(shown)).ask("GET", "/healthz")


def test_a_certificate_whose_time_is_over_is_refused(secure: Secure) -> None:
    shown = secure.authority.expired("old", "center.example")
    with pytest.raises(OSError):
        secure.client(context=secure.context(shown)).ask("GET", "/healthz")
