"""What is counted from the start: by label values, in buckets, and forgotten with its unit."""

from __future__ import annotations

from supervisor.core.measures import Counts, Histograms, Measures


def test_a_count_grows_by_what_has_happened() -> None:
    counts = Counts()
    counts.add("web", "crash")
    counts.add("web", "crash", by=2)
    counts.add("web", "command")
    assert counts.values == {("web", "crash"): 3, ("web", "command"): 1}


def test_what_belongs_to_a_unit_that_is_gone_is_forgotten() -> None:
    measures = Measures()
    for unit in "web", "job":
        measures.restarts.add(unit, "crash")
        measures.requests_cut.add(unit, by=3)
    measures.forget("web")
    assert measures.restarts.values == {("job", "crash"): 1}
    assert measures.requests_cut.values == {("job",): 3}


def test_an_observation_counts_in_its_own_bucket_and_in_all_larger_ones() -> None:
    """A bucket holds what is at most as large as its bound; the last one holds all."""
    histograms = Histograms((1.0, 2.0))
    for value in 0.5, 1.0, 1.5, 99.0:
        histograms.add(value, "a")
    assert histograms.cumulative(("a",)) == ([2, 3, 4], 102.0)


def test_keys_are_told_apart_and_can_be_there_before_anything_was_observed() -> None:
    histograms = Histograms((1.0,))
    histograms.begin("early")
    histograms.add(5.0, "late")
    assert histograms.cumulative(("early",)) == ([0, 0], 0)
    assert histograms.cumulative(("late",)) == ([0, 1], 5.0)
    histograms.begin("late")
    assert histograms.cumulative(("late",)) == ([0, 1], 5.0)


def test_ratios_of_removals_are_told_of_from_the_start() -> None:
    """So that the first late one is an increase."""
    assert Measures().removal_ratios.cumulative(())[0][-1] == 0
