"""gateways.py: what gateways say of themselves goes into an entry, and comes out of it again."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_client.gateways import GATEWAY_SERVICE, Acknowledgement, from_entry, to_metadata, token
from registry_client.model import Entry
from tests.registry_client.serving import make_entry

TOKENS = st.frozensets(st.integers(0, 2**32 - 1).map("{:08x}".format), max_size=200)
SAID = Acknowledgement("gw-1.edge", "cart", "haproxy", 7, frozenset((token("n/a", 1), token("n/b", 5))))


def entry_of(said: Acknowledgement) -> Entry:
    metadata = to_metadata(said)
    assert metadata is not None
    return make_entry(f"{said.gateway}/{said.service}", GATEWAY_SERVICE, metadata=metadata)


@given(
    TOKENS,
    st.dictionaries(st.integers(0, 2**32 - 1).map("{:08x}".format), st.integers(1, 10**6), max_size=100),
    st.booleans(),
    st.sampled_from(["cart", "cart/1", "c", "gw-1.edge", "a b"]),
)
def test_what_is_said_is_understood(serving: frozenset[str], busy: dict[str, int], counts: bool, service: str) -> None:
    """Whatever it is, an entry can hold it."""
    if "/" in service:
        service = service.replace("/", ".")
    said = Acknowledgement("gw-1.edge", service, "nginx", 12, serving, busy, counts)
    assert from_entry(entry_of(said)) == said


def test_who_is_named_is_sent_to_in_just_that_life() -> None:
    """Another generation is another."""
    assert SAID.sends_to("n/a", 1)
    assert not SAID.sends_to("n/a", 2)
    assert not SAID.sends_to("n/c", 1)


def test_what_is_open_is_known_only_where_it_is_counted() -> None:
    """Of those that get more, no number is told."""
    said = replace(SAID, busy={token("n/c", 1): 4}, counts=True)
    assert [said.in_flight(name, 1) for name in ("n/a", "n/c", "n/d")] == [None, 4, 0]
    assert replace(said, counts=False).in_flight("n/c", 1) is None


def test_nothing_open_is_not_worth_a_word() -> None:
    """It would only make the entry longer."""
    metadata = to_metadata(replace(SAID, busy={token("n/c", 1): 0}, counts=True))
    assert metadata is not None
    assert not any(name.startswith("busy") for name in metadata)


def test_three_thousand_servers_fit_and_more_are_too_many() -> None:
    """Then there is no entry, which proves nothing to anybody."""
    many = frozenset(f"{number:08x}" for number in range(3000))
    assert from_entry(entry_of(replace(SAID, serving=many))) == replace(SAID, serving=many)
    assert to_metadata(replace(SAID, serving=frozenset(f"{number:08x}" for number in range(3100)))) is None
    assert to_metadata(replace(SAID, serving=many, busy=dict.fromkeys(many, 1))) is None


def test_a_token_is_the_same_everywhere() -> None:
    """The first digits of SHA-256 over instance and generation: whoever reads it may be of another version."""
    assert token("n/a", 1) == hashlib.sha256(b"n/a\n1").hexdigest()[:8]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"service": "cart"}, "of another service"),
        ({"metadata": {}}, "that says nothing"),
        ({"metadata": {"service": "", "revision": "1"}, "instance": "gw-1.edge/cart"}, "of no service"),
        ({"metadata": {"service": "art", "revision": "1"}}, "whose name ends otherwise"),
        ({"metadata": {"service": "gw-1.edge", "revision": "1"}}, "with the service in front"),
        ({"metadata": {"service": "cart"}}, "without a revision"),
        ({"metadata": {"service": "cart", "revision": "many"}}, "with a revision that is none"),
        ({"metadata": {"service": "cart", "revision": "1", "busy.0": "0000abcd"}}, "with a number left out"),
        ({"metadata": {"service": "cart", "revision": "1", "busy.0": "0000abcd=x"}}, "with a number that is none"),
    ],
)
def test_an_entry_of_another_form_says_nothing(change: dict[str, object], why: str) -> None:
    """Somebody else's, or a mistake."""
    values: dict[str, object] = {"instance": "gw-1.edge/cart", "service": GATEWAY_SERVICE} | change
    assert from_entry(make_entry(**values)) is None, why  # type: ignore[arg-type]
