"""Measured values as text that Prometheus reads (text exposition format 0.0.4). Pure.

The format is small, and prometheus-client would cost every daemon that is scraped 2.8 MB and the module `ssl`.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .measures import Counts, Histograms

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def label(value: str) -> str:
    """A label's value between its quotes; a lone surrogate, which UTF-8 cannot say, becomes a question mark."""
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return value
    return value.encode(errors="replace").decode().translate(_ESCAPES)


def labels(names: Sequence[str], values: Iterable[str]) -> str:
    """`name="value",...`, without the braces."""
    return ",".join([f'{name}="{label(value)}"' for name, value in zip(names, values, strict=True)])


def number(value: float) -> str:
    """As short as it can be said exactly."""
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


class Family:
    """All samples of one metric, line by line."""

    __slots__ = ("_kind", "_name", "_text", "lines")

    def __init__(self, name: str, kind: str, text: str) -> None:
        """`kind`: counter, gauge or histogram; `text` says what is measured, in one line."""
        self._name, self._kind, self._text = name, kind, text
        self.lines: list[str] = []

    def add(self, value: float, written_labels: str = "") -> None:
        """One sample; the labels as `labels` writes them."""
        self.lines.append(f"{self._name}{{{written_labels}}} {number(value)}" if written_labels
                          else f"{self._name} {number(value)}")  # fmt: skip

    def add_counts(self, names: Sequence[str], counts: Counts) -> None:
        """A sample for each key."""
        for key, value in counts.values.items():
            self.add(value, labels(names, key))

    def add_histograms(self, names: Sequence[str], histograms: Histograms) -> None:
        """All buckets of all keys."""
        bounds = [*(number(bound) for bound in histograms.bounds), "+Inf"]
        for key in histograms.values:
            sums, total = histograms.cumulative(key)
            written = labels(names, key)
            more = f"{written}," if written else ""
            braces = f"{{{written}}}" if written else ""
            self.lines += [
                f'{self._name}_bucket{{{more}le="{bound}"}} {count}' for bound, count in zip(bounds, sums, strict=True)
            ]
            self.lines += [f"{self._name}_sum{braces} {number(total)}", f"{self._name}_count{braces} {sums[-1]}"]

    def text(self) -> str:
        """All of it, also while there is no sample."""
        return "\n".join([f"# HELP {self._name} {self._text}", f"# TYPE {self._name} {self._kind}", *self.lines, ""])
