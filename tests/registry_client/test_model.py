"""model.py: what an entry may be, and its JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_client import Entry, LeaseKey, RegistryRejected, Snapshot

VALUE: dict[str, Any] = {
    "schema": 1,
    "service": "addToCart",
    "instance": "web-7/addToCart:0",
    "node": "web-7",
    "unit": "addToCart:0",
    "address": "192.168.1.2",
    "port": 9080,
    "generation": 42,
    "status": "warming",
    "weight": 10,
    "full_weight": 100,
    "started_at": "2026-11-23T06:29:10.123Z",
    "warmup_seconds": 100,
    "version": "1.4.2",
    "zone": "a",
    "metadata": {"team": "shop"},
}
REQUIRED = [name for name in VALUE if name not in ("warmup_seconds", "version", "zone", "metadata")]


def blamed(value: object) -> str:
    with pytest.raises(RegistryRejected, match="cannot use the entry") as caught:
        Entry.from_json(value)
    assert caught.value.code == "bad_entry"
    assert caught.value.key in str(caught.value)
    return caught.value.key


def test_an_entry_is_exactly_its_json() -> None:
    entry = Entry.from_json(VALUE)
    assert entry.to_json() == VALUE
    assert list(entry.to_json()) == list(VALUE)
    assert Entry.from_json(json.loads(json.dumps(entry.to_json()))) == entry
    assert entry.key == LeaseKey("addToCart", "web-7/addToCart:0", 42)
    assert hash(entry) == hash(Entry.from_json(VALUE))


def test_absent_is_null_when_written_and_either_when_read() -> None:
    optional: dict[str, Any] = {"warmup_seconds": None, "version": None, "zone": None, "metadata": None}
    absent = {name: VALUE[name] for name in REQUIRED}
    entry = Entry.from_json(absent)
    assert entry == Entry.from_json(absent | optional)
    assert entry.to_json() == absent | {"warmup_seconds": 0, "version": None, "zone": None, "metadata": {}}


def test_unknown_members_are_ignored() -> None:
    assert Entry.from_json(VALUE | {"colour": "green"}) == Entry.from_json(VALUE)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_member_is_named(name: str) -> None:
    assert blamed({key: item for key, item in VALUE.items() if key != name}) == name
    assert blamed(VALUE | {name: None}) == name


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("schema", 2),
        ("schema", True),
        ("schema", 1.0),
        ("service", 7),
        ("service", ""),
        ("service", "a/b"),
        ("service", ".."),
        ("service", "a\nb"),
        ("service", "a" * 256),
        ("service", "ä" * 128),
        ("instance", "/a"),
        ("instance", "a//b"),
        ("instance", "a/../b"),
        ("instance", "\ud800"),
        ("node", ["web-7"]),
        ("address", "\x00"),
        ("port", 0),
        ("port", 65536),
        ("port", "9080"),
        ("port", 9080.0),
        ("port", True),
        ("generation", -1),
        ("generation", 2**53),
        ("status", "down"),
        ("status", ["up"]),
        ("weight", -1),
        ("weight", 65536),
        ("full_weight", 1.5),
        ("started_at", "2026-11-23 06:29:10"),
        ("started_at", "2026-11-23T06:29:10.123Z\n"),
        ("started_at", 1795415350),
        ("warmup_seconds", -1),
        ("warmup_seconds", float("nan")),
        ("warmup_seconds", float("inf")),
        ("warmup_seconds", "100"),
        ("warmup_seconds", True),
        ("version", 1),
        ("version", ""),
        ("zone", "\x1b[0m"),
        ("metadata", ["team"]),
        ("metadata", {str(number): "" for number in range(65)}),
        ("metadata", {"": ""}),
        ("metadata", {"k" * 129: ""}),
        ("metadata.team", {"team": 7}),
        ("metadata.team", {"team": "x" * 513}),
        ("metadata.team", {"team": "\ud800"}),
    ],
)
def test_a_wrong_member_is_named(name: str, wrong: object) -> None:
    assert blamed(VALUE | {name.split(".")[0]: wrong}) == name


@pytest.mark.parametrize("value", [None, [], "entry", 7])
def test_what_is_no_object_is_no_entry(value: object) -> None:
    assert blamed(value) == ""


def test_a_long_wrong_value_is_not_repeated_in_full() -> None:
    with pytest.raises(RegistryRejected) as caught:
        Entry.from_json(VALUE | {"status": "x" * 100_000})
    assert len(str(caught.value)) < 300


def test_metadata_is_the_entrys_own_copy() -> None:
    mine = {"team": "shop"}
    entry = Entry.from_json(VALUE | {"metadata": mine})
    mine["team"] = "other"
    assert entry.metadata == {"team": "shop"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(VALUE)), JSON)
def test_any_json_is_an_entry_or_is_refused(name: str, value: object) -> None:
    try:
        entry = Entry.from_json(VALUE | {name: value})
    except RegistryRejected as error:
        assert error.code == "bad_entry"
    else:
        assert Entry.from_json(json.loads(json.dumps(entry.to_json()))) == entry
        json.dumps(entry.to_json(), ensure_ascii=False).encode()


def test_a_lease_key_is_exactly_its_json() -> None:
    key = LeaseKey("s", "n/i", 3)
    assert LeaseKey.from_json(key.to_json()) == key
    for wrong in (
        None,
        {},
        {"service": "s", "instance": "n/i"},
        {"service": "s", "instance": 1, "generation": 3},
    ):
        with pytest.raises(RegistryRejected):
            LeaseKey.from_json(wrong)


def test_a_snapshot_is_exactly_its_json() -> None:
    snapshot = Snapshot(7, "e", None, (Entry.from_json(VALUE),))
    assert Snapshot.from_json(json.loads(json.dumps(snapshot.to_json()))) == snapshot


@pytest.mark.parametrize(
    "change",
    [
        {"revision": -1},
        {"revision": "7"},
        {"epoch": None},
        {"service": 7},
        {"entries": {}},
        {"entries": [{}]},
    ],
)
def test_a_wrong_snapshot_is_refused(change: dict[str, Any]) -> None:
    value = {"revision": 7, "epoch": "e", "service": None, "entries": [VALUE]}
    with pytest.raises(RegistryRejected):
        Snapshot.from_json(value | change)
    with pytest.raises(RegistryRejected):
        Snapshot.from_json([value])
