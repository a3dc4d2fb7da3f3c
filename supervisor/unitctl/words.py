"""Words for people: lengths of time, counts, columns, and text that cannot steer a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def clean(text: str) -> str:
    """Text for one line of a terminal: whatever could steer the terminal is shown, not obeyed."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char in "\n\t" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def width(text: str) -> int:
    """Columns that a text takes on a terminal: East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width  # rarely needed

    return sum(
        0 if category(char) in ("Mn", "Me", "Cf") else 2 if east_asian_width(char) in "WF" else 1 for char in text
    )


def pad(text: str, columns: int) -> str:
    """With spaces at its end, so many columns wide."""
    return text + " " * (columns - width(text))


def cut(text: str, columns: int) -> str:
    """Its beginning, at most so many columns wide; what is cut off is marked."""
    if width(text) <= columns:
        return text
    kept = text[: max(columns - 1, 0)]
    while kept and width(kept) > columns - 1:
        kept = kept[:-1]
    return f"{kept}…" if columns > 0 else ""


def uptime(seconds: float) -> str:
    """As people know it from other supervisors: `0:02:05`, `3 days, 1:00:00`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}"
    return clock if not days else f"{days} day{'s' if days > 1 else ''}, {clock}"


def span(seconds: float) -> str:
    """A length of time in one unit: `1.2 s`, `12 min`, `3 h`, `2 days`."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"


def counted(count: int, what: str) -> str:
    """`1 unit`, `2 units`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns, but for the last, are two spaces apart and aligned."""
    table = list(rows)
    widths = [max(map(width, column)) for column in zip(*(row[:-1] for row in table), strict=True)]
    return [
        "  ".join([*(pad(cell, columns) for cell, columns in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in table
    ]
