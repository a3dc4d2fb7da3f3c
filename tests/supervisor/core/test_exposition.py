"""The text that Prometheus reads: its own parser finds in it what was put in."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from supervisor.core.exposition import Family, labels, number
from supervisor.core.measures import Counts, Histograms


def _samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    return [
        (item.name, item.labels, item.value)
        for family in text_string_to_metric_families(text)
        for item in family.samples
    ]


def test_a_sample_without_and_with_labels() -> None:
    family = Family("unitd_units", "gauge", "Units.")
    family.add(3)
    family.add(0.25, labels(("unit",), ("web:0",)))
    text = family.text()
    assert text.startswith("# HELP unitd_units Units.\n# TYPE unitd_units gauge\n")
    assert _samples(text) == [("unitd_units", {}, 3.0), ("unitd_units", {"unit": "web:0"}, 0.25)]


@pytest.mark.parametrize("value", ["plain", 'a "quoted" one', "back\\slash", "two\nlines", "für 中", "a,b={}"])
def test_any_text_can_be_the_value_of_a_label(value: str) -> None:
    family = Family("x", "gauge", "X.")
    family.add(1, labels(("name", "other"), (value, "o")))
    assert _samples(family.text()) == [("x", {"name": value, "other": "o"}, 1.0)]


def test_what_utf8_cannot_say_becomes_a_question_mark() -> None:
    assert labels(("name",), ("a\ud800b",)) == 'name="a?b"'


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (True, "1"), (2.0, "2"), (0.1, "0.1"), (1e300, "1e+300"), (-3, "-3")]
)
def test_a_number_is_said_as_shortly_as_is_exact(value: float, text: str) -> None:
    assert number(value) == text
    assert float(number(value)) == value


def test_counts_become_samples() -> None:
    counts, family = Counts(), Family("x_total", "counter", "X.")
    counts.add("web", "crash", by=2)
    family.add_counts(("unit", "cause"), counts)
    assert _samples(family.text()) == [("x_total", {"unit": "web", "cause": "crash"}, 2.0)]


@pytest.mark.parametrize("key", [(), ("stop",)], ids=["without labels", "with labels"])
def test_a_histogram_has_all_buckets_a_sum_and_a_count(key: tuple[str, ...]) -> None:
    histograms, family = Histograms((0.5, 2.0)), Family("x_seconds", "histogram", "X.")
    names, known = ("verb",)[: len(key)], dict(zip(("verb",), key))
    histograms.add(1.5, *key)
    family.add_histograms(names, histograms)
    assert _samples(family.text()) == [
        ("x_seconds_bucket", {**known, "le": "0.5"}, 0.0),
        ("x_seconds_bucket", {**known, "le": "2"}, 1.0),
        ("x_seconds_bucket", {**known, "le": "+Inf"}, 1.0),
        ("x_seconds_sum", known, 1.5),
        ("x_seconds_count", known, 1.0),
    ]


def test_a_metric_without_samples_is_named_all_the_same() -> None:
    (family,) = text_string_to_metric_families(Family("x", "gauge", "X.").text())
    assert (family.name, family.samples) == ("x", [])
