"""`unitctl fleet` as people and scripts use it: what is printed where, what is asked of the center, the exit codes."""

from __future__ import annotations

import json
from typing import Any

import pytest

AT = "2026-11-24T08:00:00.000Z"


# Looking.


def test_services_are_listed_with_their_capacity(cart: Any, fleet: Any) -> None:
    cart.entries["web-2/cart:0"].update(status="warming", weight=40)
    cart.add("web-4/pay:0", "pay", zone=None)
    cart.frozen["pay"] = "3 of 4 look dead"
    done = fleet("fleet", "services")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "SERVICE  CAPACITY         WEIGHT   INSTANCES        NODES  ZONES     NOTE",
        "cart     ████████░░  85%  340/400  3 up, 1 warming  4      a 2, b 2",
        "pay      ██████████ 100%  100/100  1 up             1                no automatic restarts: 3 of 4 look dead",
    ]


def test_nodes_are_listed_with_what_the_center_thinks_of_them(cart: Any, fleet: Any) -> None:
    cart.nodes["web-2"].update(state="suspect", phi=9.31, seen_seconds_ago=31.0, detail="silent")
    done = fleet("fleet", "nodes", "web-[12]")
    assert done.stdout.splitlines() == [
        "NODE   STATE    PHI  LAST SEEN   UNITS  OPEN  VERSION  VIA   ADDRESS        NOTE",
        "web-1  up       0.3  1.2 s ago   2      0     0.1.0    push  10.0.0.7:9301",
        "web-2  suspect  9.3  31.0 s ago  2      0     0.1.0    push  10.0.0.7:9301  silent",
    ]


def test_gateways_are_listed_with_whom_they_send_to(cart: Any, fleet: Any) -> None:
    said = {"kind": "haproxy", "service": "cart", "revision": 7, "serving": 4, "listed": 4, "lacks": [], "stale": 0}
    cart.gateways = [
        {**said, "gateway": "gw-2.edge", "serving": 3, "lacks": ["web-1/cart:0"], "stale": 1, "finishing": 2},
        {**said, "gateway": "gw-1.edge", "finishing": 0},
    ]
    done = fleet("fleet", "gateways")
    note = "does not send to web-1/cart:0; still sends to 1 that the registry does not list"
    assert done.stdout.splitlines() == [
        "GATEWAY    KIND     SERVICE  SENDS TO  FINISHING  NOTE",
        "gw-1.edge  haproxy  cart     4 of 4",
        f"gw-2.edge  haproxy  cart     3 of 4    2          {note}",
    ]
    assert json.loads(fleet("fleet", "gateways", "gw-1*", "-o", "json").stdout) == cart.gateways[1:]


def test_status_shows_the_fleet_in_short(cart: Any, fleet: Any) -> None:
    cart.nodes["web-4"]["state"] = "dead"
    cart.hold()
    fleet("fleet", "restart", "cart", "--no-wait")
    out = fleet("fleet", "status").stdout
    assert out.startswith("center-1 leads, mode assist, registry embedded ok; 4 nodes, 3 of them up\n")
    blocks = out.split("\n\n")
    assert [block.split("\n")[1].split()[0] for block in blocks[1:]] == ["cart", "web-4", "fo-1"]


def test_status_shows_each_instance_of_services_and_nodes(cart: Any, fleet: Any) -> None:
    cart.entries["web-1/cart:0"].update(generation=42, operation="fo-9", reports=2)
    done = fleet("fleet", "status", "c*", "web-1")
    assert done.returncode == 0
    service, node = done.stdout.split("\n\n")
    assert service.startswith("cart: ██████████ 100% (400/400), 4 up\n")
    line = next(line for line in service.splitlines() if "web-1/cart:0" in line)
    assert line.split()[:4] == ["web-1/cart:0", "up", "100/100", "██████████"]
    assert line.split()[4] == "42" and line.endswith("operation fo-9; reported dead by 2 gateways")
    assert node.startswith("web-1: up, phi 0.3, last seen 1.2 s ago, unitd 0.1.0, 10.0.0.7:9301 (push)\n")
    assert "web-1/cart:0" in node and "web-2" not in node


@pytest.mark.parametrize("arguments", [("status", "kart"), ("services", "kart"), ("status", "cart", "kart")])
def test_an_unknown_name_is_4_with_the_nearest(cart: Any, fleet: Any, arguments: tuple[str, ...]) -> None:
    done = fleet("fleet", *arguments)
    assert (done.returncode, done.stdout) == (4, "")
    assert "is called kart (did you mean cart?)" in done.stderr


def test_json_prints_the_objects_of_the_api(cart: Any, fleet: Any) -> None:
    cart.decisions = [{"id": 4, "verdict": "wait", "evidence": {"é": 1}}]
    cart.happen("mode", mode="full")

    def printed(*arguments: str) -> Any:
        return json.loads(fleet("fleet", *arguments, "-o", "json").stdout)

    assert printed("nodes") == list(cart.nodes.values())
    assert [item["service"] for item in printed("services")] == ["cart"]
    assert set(printed("status")) == {"center", "services", "nodes", "operations"}
    assert printed("status", "cart")["services"][0]["entries"] == list(cart.entries.values())
    assert printed("decisions") == cart.decisions
    assert printed("events") == cart.events
    assert printed("restart", "cart", "--dry-run")["id"] == ""
    assert printed("restart", "cart", "--no-wait")["id"] == "fo-1"
    assert printed("restart", "cart", "--command-id", "x")["state"] == "succeeded"
    assert [item["id"] for item in printed("ops")] == ["fo-2", "fo-1"]
    assert printed("ops", "fo-1")[0]["targets"][0]["instance"] == "web-1/cart:0"
    assert printed("mode")["mode"] == "assist"
    assert printed("thaw", "cart") == {"service": "cart", "cleared": True}
    assert printed("logs", "web-1", "cart:0") == ["listening on 9080", "cart:0 stdout"]


def test_an_empty_fleet_is_said_to_be_one(center: Any, fleet: Any) -> None:
    done = fleet("fleet", "services")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "there are no services in the registry\n")


# Ordering.


def request_of(fleet: Any, center: Any, *arguments: str) -> Any:
    """What is asked of the center for a command line."""
    done = fleet("fleet", *arguments)
    assert done.returncode == 0, done.stderr
    return center.asked("POST", "/v1/operations")[-1].json


def test_targets_are_named_as_people_think(cart: Any, fleet: Any) -> None:
    asked = request_of(fleet, cart, "restart", "cart", "p*", "--node", "web-7", "--node", "db-*", "--unit", "cart:0",
                       "--instance", "web-7/cart:0", "--label", "team=cart", "--zone", "a")  # fmt: skip
    assert asked["verb"] == "restart"
    assert asked["selection"] == {
        "services": ["cart", "p*"], "nodes": ["web-7", "db-*"], "units": ["cart:0"], "instances": ["web-7/cart:0"],
        "labels": {"team": "cart", "zone": "a"},
    }  # fmt: skip
    assert "strategy" not in asked and "deadline" not in asked
    assert len(asked["command_id"]) == 32 and asked["issued_by"]


def test_rolling_options_say_how_it_goes(cart: Any, fleet: Any) -> None:
    asked = request_of(
        fleet, cart, "restart", "cart", "--batch", "2", "--canary", "0", "--bake", "2m", "--floor", "66.5",
        "--max-failures", "3", "--no-zones", "--target-timeout", "10m",
    )  # fmt: skip
    assert asked["strategy"] == {
        "batch": "2", "canary": 0, "bake_seconds": 120.0, "floor_percent": 66.5, "max_failures": 3, "by_zone": False,
        "target_seconds": 600.0,
    }  # fmt: skip
    assert request_of(fleet, cart, "stop", "cart", "--batch", "25%")["strategy"] == {"batch": "25%"}
    assert request_of(fleet, cart, "restart", "cart", "--all-at-once")["strategy"] is None


@pytest.mark.parametrize(
    ("line", "verb", "selection", "parameters"),
    [
        ("restart cart --force", "restart", {"services": ["cart"]}, {"force": True}),
        ("stop --node web-1", "stop", {"nodes": ["web-1"]}, {}),
        ("start --node web-1 --unit cart:0", "start", {"nodes": ["web-1"], "units": ["cart:0"]}, {}),
        ("drain --node web-1 --for 2h --owner ops", "drain", {"nodes": ["web-1"]}, {"for_seconds": 7200.0, "owner": "ops"}),
        ("undrain cart", "undrain", {"services": ["cart"]}, {}),
        ("warm cart --initial 5 --step 5 --period 1m", "warm", {"services": ["cart"]}, {"initial": 5, "step": 5, "period": 60.0}),
        ("warm cart --pause", "warm", {"services": ["cart"]}, {"pause": True}),
        ("weight cart 40", "weight", {"services": ["cart"]}, {"weight": 40}),
        ("weight auto --instance web-1/cart:0", "weight", {"instances": ["web-1/cart:0"]}, {"weight": "auto"}),
        ("signal hup cart", "signal", {"services": ["cart"]}, {"signal": "HUP"}),
        ("apply web-1 web-2", "apply", {"nodes": ["web-1", "web-2"]}, {}),
        ("apply --zone b", "apply", {"labels": {"zone": "b"}}, {}),
    ],
)  # fmt: skip
def test_each_verb_asks_for_what_it_says(
    cart: Any, fleet: Any, line: str, verb: str, selection: Any, parameters: Any
) -> None:
    asked = request_of(fleet, cart, *line.split(), "--reason", "why not", "--no-wait")
    assert (asked["verb"], asked["selection"], asked["parameters"]) == (verb, selection, parameters)
    assert asked["reason"] == "why not"


def test_an_id_a_deadline_and_a_generation_are_handed_over(cart: Any, fleet: Any) -> None:
    asked = request_of(fleet, cart, "restart", "--instance", "web-1/cart:0", "--command-id", "deploy-1",
                       "--deadline", "2126-11-24T18:00Z", "--expected-generation", "7")  # fmt: skip
    assert asked["command_id"] == "deploy-1"
    assert asked["deadline"] == "2126-11-24T18:00:00.000Z"
    assert asked["expected_generation"] == 7


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("restart", "say which units"),
        ("restart cart --all-at-once --floor 50", "--all-at-once knows no batches"),
        ("restart cart --batch 0", "neither a number such as 2 nor a share such as 25%"),
        ("restart cart --label team", "is not a label such as team=cart"),
        ("restart cart --zone a --label zone=b", "each label can be given once"),
        ("restart cart --command-id ''", "must not be empty"),
        ("drain cart --for 1h --until 18:00", "exclude each other"),
        ("warm cart --pause --jump 40", "cannot be given together"),
        ("start cart --batch 2", "No such option"),
        ("clear cart", "is not an instance such as web-7/cart:0"),
        ("mode sometimes", "is not one of"),
        ("ops -f", "name the operations to follow"),
        ("abort", "name the operations to abort; unitctl fleet ops --open lists them"),
        ("restrat cart", "did you mean 'restart'?"),
        ("nodes --center ftp://x", "is not an URL such as https://center.example:9300"),
    ],
)
def test_a_wrong_line_is_2_and_asks_nothing(cart: Any, fleet: Any, line: str, words: str) -> None:
    import shlex

    done = fleet("fleet", *shlex.split(line))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert cart.requests == []


def test_the_options_of_the_hosts_own_unitd_have_no_place_here(cart: Any, fleet: Any) -> None:
    done = fleet("-s", "/run/unitd.sock", "fleet", "nodes")
    assert done.returncode == 2 and "-s is about this host's unitd" in done.stderr
    assert cart.requests == []


def test_a_plan_shows_batches_floor_and_time_and_does_nothing(cart: Any, fleet: Any) -> None:
    cart.entries["web-4/cart:0"].update(weight=0, status="draining")
    cart.entries["web-3/cart:0"].update(weight=50, status="warming")
    done = fleet("fleet", "restart", "cart", "--dry-run", "--deadline", "2126-11-24T18:00Z")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:8] == [
        "restart of cart: 4 targets on 4 nodes, 3 batches:",
        "  1  canary      1  web-1/cart:0",
        "  2  zone a 1/2  2  web-2/cart:0, web-3/cart:0",
        "  3  zone a 2/2  1  web-4/cart:0",
        "floor: 75% of cart, 300 of 400, stays in the registry: 1 of 4 may be out at a time; "
        "it waits first, for now there is 250",
        "takes at least 0:03:30: 0:00:30 of watching the canary, 0:03:00 of warming up",
        "gives a target up after 0:15:00, and stops when more than 0 have failed",
        lines[7],
    ]
    assert lines[7].startswith("begins no target after 2126-11-24T18:00:00.000Z, in ")
    assert cart.operations == {}
    assert all(request.json.get("dry_run") for request in cart.asked("POST", "/v1/operations"))


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(409, "busy", 1), (422, "nothing_selected", 4), (422, "floor", 1), (422, "replayed", 2), (403, "forbidden", 4),
     (400, "bad_request", 2), (410, "deadline_passed", 1), (503, "registry_away", 1), (503, "shutting_down", 69)],
)  # fmt: skip
def test_a_refusal_is_told_in_the_centers_words(cart: Any, fleet: Any, status: int, code: str, exit_code: int) -> None:
    cart.problem("POST", "/v1/operations", status, code, "the reason why")
    done = fleet("fleet", "restart", "cart", "--timeout", "1")
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert "the reason why" in done.stderr


# Operations, guards, logs.


def test_operations_are_listed_and_told_of(cart: Any, fleet: Any) -> None:
    cart.hold()
    fleet("fleet", "restart", "cart", "--no-wait", "--reason", "new build")
    cart.change("fo-1", state="running", waiting_for="cart is at its floor",
                targets={"web-1/cart:0": {"state": "failed", "detail": "given up: no such file"},
                         "web-2/cart:0": {"state": "running", "steps": "waiting for the work in flight"}})  # fmt: skip
    lines = fleet("fleet", "ops", "--open").stdout.splitlines()
    assert lines[1].split()[:6] == ["fo-1", "running", "restart", "of", "cart", "1/4"]
    assert lines[1].endswith("cart is at its floor")
    text = fleet("fleet", "ops", "fo-1").stdout
    for words in (
        "fo-1: restart of cart: running, 1 of 4 done, 1 failed",
        ": new build",
        "waits: cart is at its floor",
        "web-1/cart:0  failed  given up: no such file",
        "running  waiting for the work in flight",
    ):
        assert words in text
    done = fleet("fleet", "ops", "fo-7")
    assert done.returncode == 4 and "there is no operation fo-7" in done.stderr


def test_an_operation_is_paused_resumed_and_aborted(cart: Any, fleet: Any) -> None:
    cart.hold()
    fleet("fleet", "restart", "cart", "--no-wait")
    cart.change("fo-1", state="running", targets={"web-1/cart:0": {"state": "running"}})
    assert fleet("fleet", "pause", "fo-1", "--reason", "lunch").stdout == (
        "fo-1: pauses after what is under way (1 unit under way)\n"
    )
    assert cart.asked("POST", ".*/pause")[0].json == {"reason": "lunch"}
    assert fleet("fleet", "resume", "fo-1").stdout == "fo-1: goes on (1 unit under way)\n"
    assert fleet("fleet", "abort", "fo-1").stdout.startswith("fo-1: called off")
    done = fleet("fleet", "abort", "fo-1")
    assert done.returncode == 1 and "fo-1 has ended" in done.stderr


def test_decisions_are_listed_with_rule_and_reason_and_told_with_their_evidence(cart: Any, fleet: Any) -> None:
    cart.decisions = [
        {"id": 4, "at": AT, "service": "cart", "instance": "web-1/cart:0", "generation": 7, "verdict": "restart",
         "rule": "quorum", "reason": "two gateways call it dead", "evidence": {"gateways": ["gw-1", "gw-2"]},
         "operation": "fo-1"}
    ]  # fmt: skip
    assert fleet("fleet", "decisions").stdout.splitlines()[1] == (
        f"4   {AT}  restart  web-1/cart:0  quorum  two gateways call it dead (operation fo-1)"
    )
    text = fleet("fleet", "decisions", "4").stdout
    assert text == fleet("fleet", "decisions", "-v").stdout
    assert '  gateways: ["gw-1", "gw-2"]\n' in text


def test_the_mode_is_shown_and_set(cart: Any, fleet: Any) -> None:
    assert fleet("fleet", "mode").stdout == "assist\n"
    assert fleet("fleet", "mode", "observe", "--reason", "new network").stdout == "observe\n"
    assert cart.asked("PUT", "/v1/center/mode")[0].json == {"mode": "observe", "reason": "new network"}


def test_a_service_is_thawed_and_an_instance_cleared(cart: Any, fleet: Any) -> None:
    assert fleet("fleet", "thaw", "cart").stdout == "cart: automatic restarts are allowed again\n"
    assert fleet("fleet", "clear", "web-1/cart:0").stdout == "web-1/cart:0: its restarts are forgotten\n"
    assert [request.path for request in cart.requests] == ["/v1/services/cart/thaw", "/v1/instances/web-1/cart:0/clear"]


def test_logs_come_from_the_node_byte_for_byte(cart: Any, fleet: Any) -> None:
    done = fleet("fleet", "logs", "web-1", "cart:0", "--stderr", "-n", "3")
    assert (done.returncode, done.stdout) == (0, "listening on 9080\ncart:0 stderr\n")
    assert cart.requests[0].query == {"stream": "stderr", "lines": "3"}
    done = fleet("fleet", "logs", "nowhere", "cart:0")
    assert (done.returncode, done.stdout) == (1, "") and "cannot reach nowhere" in done.stderr


# Help, and the TAB key.


def test_help_explains_the_group_and_each_of_its_commands(fleet: Any) -> None:
    assert "Command the units of many hosts" in fleet("help", "fleet").stdout
    assert "--floor" in fleet("help", "fleet", "restart").stdout
    assert fleet("help", "fleet", "restart").stdout == fleet("fleet", "restart", "-h").stdout
    assert "did you mean 'restart'" in fleet("help", "fleet", "restat").stderr
    assert "unitctl status has no commands of its own" in fleet("help", "status", "x").stderr


def offered(fleet: Any, line: str) -> list[str]:
    done = fleet(COMP_WORDS=line, _UNITCTL_COMPLETE="bash_complete")
    assert (done.returncode, done.stderr) == (0, "")
    return [item.partition(",")[2] for item in done.stdout.splitlines() if item]


def test_the_tab_key_completes_commands_options_and_names(cart: Any, fleet: Any) -> None:
    cart.hold()
    cart.add("web-1/pay:0", "pay")
    fleet("fleet", "restart", "cart", "--no-wait")
    patient = "unitctl --timeout 10 fleet"
    assert offered(fleet, "unitctl fleet re") == ["restart", "resume"]
    assert offered(fleet, "unitctl fleet restart --ba") == ["--batch", "--bake"]
    assert offered(fleet, "unitctl fleet restart --cen") == ["--center"]
    assert offered(fleet, f"{patient} restart ") == ["cart", "pay"]
    assert offered(fleet, f"{patient} restart --node web-") == ["web-1", "web-2", "web-3", "web-4"]
    assert offered(fleet, f"{patient} status w") == ["web-1", "web-2", "web-3", "web-4"]
    assert offered(fleet, f"{patient} abort f") == ["fo-1"]
    assert offered(fleet, f"{patient} clear web-1/") == ["web-1/cart:0", "web-1/pay:0"]
    cart.stop()
    assert offered(fleet, f"{patient} restart ") == []
