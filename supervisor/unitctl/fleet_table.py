"""Tables for people: columns that are left out, the least important first, where a terminal is too narrow. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .words import clean, cut, pad, width

_GAP = "  "
_RESET = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Look:
    """How much room there is (0: no end of it), whether colours are wanted, and whether any character can be shown."""

    columns: int = 0
    color: bool = False
    unicode: bool = True


@dataclass(frozen=True, slots=True)
class Column:
    """`drop` is when it is left out for want of room: the greatest first, 0 never. `colours`: cell -> colour."""

    title: str
    cells: Sequence[str]
    drop: int = 0
    colours: Mapping[str, str] | None = None

    @property
    def width(self) -> int:
        """What its widest cell takes."""
        return max(width(self.title), *map(width, self.cells)) if self.cells else width(self.title)


def table(columns: Iterable[Column], look: Look) -> str:
    """Lines with a heading; columns without any text are left out, as are those for which there is no room."""
    made = [Column(each.title, [clean(cell) for cell in each.cells], each.drop, each.colours) for each in columns]
    shown = _that_fit([column for column in made if any(column.cells)], look.columns)
    if not shown:
        return ""
    count = len(shown[0].cells)
    lines = [_line([(column.title, None, column.width) for column in shown], look)]
    lines += [_line([_cell(column, row) for column in shown], look) for row in range(count)]
    return "".join(f"{line}\n" for line in lines)


def _that_fit(columns: list[Column], room: int) -> list[Column]:
    while room and sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1) > room:
        goes = max(columns, key=lambda column: column.drop)
        if not goes.drop:
            break
        columns = [column for column in columns if column is not goes]
    return columns


Cell = tuple[str, str | None, int]  # text, colour, width of its column


def _cell(column: Column, row: int) -> Cell:
    text = column.cells[row]
    return text, (column.colours or {}).get(text), column.width


def _line(cells: list[Cell], look: Look) -> str:
    """The last cell is not padded; what is beyond the room is cut off."""
    parts: list[str] = []
    used = 0
    for number, (text, colour, columns) in enumerate(cells):
        is_last = number == len(cells) - 1
        if look.columns:
            text = cut(text, look.columns - used)
        used += columns + len(_GAP)
        painted = paint(text, colour, look)
        parts.append(painted if is_last else painted + pad("", columns - width(text)))
        if look.columns and used >= look.columns:
            break
    return _GAP.join(parts).rstrip()


def paint(text: str, colour: str | None, look: Look) -> str:
    """In a colour, where colours are wanted."""
    return f"\x1b[{colour}m{text}{_RESET}" if colour and look.color and text else text


def bar(part: float, whole: float, look: Look, cells: int = 10) -> str:
    """A share as a bar; never full unless it is all, never empty unless it is nothing."""
    share = min(max(part / whole, 0.0), 1.0) if whole > 0 else 0.0
    full = min(max(round(share * cells), 1 if share > 0 else 0), cells if share >= 1 else cells - 1)
    on, off = ("█", "░") if look.unicode else ("#", ".")
    return on * full + off * (cells - full)
