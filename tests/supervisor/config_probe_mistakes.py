"""Mistakes in the tables of probes, drain and warm-up; `config_mistakes.py` makes them."""

from __future__ import annotations

from collections.abc import Callable

from tests.supervisor.config_draft import CART, Draft


def probe_without_a_kind(draft: Draft) -> None:
    part, kind = draft.rng.choice([("startup", "tcp"), ("readiness", "http"), ("liveness", "exec")])
    del draft.unit()[part][kind]
    draft.blame(f"unit.cart.{part}")


def unknown_kind_of_probe(draft: Draft) -> None:
    part, kind = draft.rng.choice([("startup", "tcp"), ("readiness", "http"), ("liveness", "exec")])
    other = draft.rng.choice(["htpp", "grpc", "HTTP", "tcpSocket", "httpGet", "command", "script", "", "ä", "a.b"])
    draft.unit()[part][other] = draft.unit()[part].pop(kind)
    quoted = other if other.isascii() and other.isalnum() else repr(other)
    draft.blame(f"unit.cart.{part}.{quoted}")


def probe_of_two_kinds(draft: Draft) -> None:
    part, kind = draft.rng.choice([("startup", "kernel"), ("readiness", "notify"), ("liveness", "tcp")])
    draft.unit()[part][kind] = True
    draft.blame(f"unit.cart.{part}.{kind}")


def unknown_option_of_a_probe(draft: Draft) -> None:
    option = draft.rng.choice(["prot", "url", "timeout", "Path"])
    draft.unit()["readiness"]["http"][option] = 1
    draft.blame(f"unit.cart.readiness.http.{option}")


def deep_options_of_a_probe(draft: Draft) -> None:
    draft.file, draft.key = CART, None
    draft.spoil[CART] = lambda data: (
        data + b"[unit.cart.readiness.http" + b".a" * draft.rng.choice([9, 90, 900]) + b"]\n"
    )


def probe_of_no_port(draft: Draft) -> None:
    kind = draft.rng.choice(["http", "tcp", "kernel"])
    value = {"http": draft.rng.choice(["/", {}]), "tcp": True, "kernel": {"queue": True}}[kind]
    draft.unit("monitor")["readiness"] = {kind: value}
    draft.blame(f"unit.monitor.readiness.{kind}")


def call_of_no_port(draft: Draft) -> None:
    draft.unit("monitor")["drain"] = draft.rng.choice(
        [{"notify": {"http": "/drain"}}, {"notify": {"http": {"path": "/drain", "method": "POST"}}}]
    )
    draft.blame("unit.monitor.drain.notify.http")


def drain_of_nothing(draft: Draft) -> None:
    draft.unit("monitor")["drain"] = draft.rng.choice([{}, {"timeout": 5}, {"in_flight": "none"}])
    draft.blame("unit.monitor.drain")


def drain_that_is_taken_back_but_never_told(draft: Draft) -> None:
    del draft.unit()["drain"]["notify"]
    draft.blame("unit.cart.drain.resume")


def hook_of_two_ways(draft: Draft) -> None:
    hook = draft.rng.choice(["notify", "resume"])
    draft.unit()["drain"][hook] = {"http": "/a", "signal": "USR1"}
    draft.blame(f"unit.cart.drain.{hook}.signal")


def warmup_of_nothing(draft: Draft) -> None:
    draft.unit("monitor")["warmup"] = draft.rng.choice([{}, {"step": 50}, {"requests": ["GET /"]}])
    draft.blame("unit.monitor.warmup")


PROBE_KINDS: tuple[Callable[[Draft], None], ...] = (
    probe_without_a_kind,
    unknown_kind_of_probe,
    probe_of_two_kinds,
    unknown_option_of_a_probe,
    deep_options_of_a_probe,
    probe_of_no_port,
    call_of_no_port,
    drain_of_nothing,
    drain_that_is_taken_back_but_never_told,
    hook_of_two_ways,
    warmup_of_nothing,
)
