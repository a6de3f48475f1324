"""What is printed: tables, facts and JSON. With `rich` installed and a terminal, tables are drawn; else they are plain.

It must not know what the words mean. Law: text of users never moves the cursor or colours anything: control characters
are shown, not sent.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, Final, TypeGuard

CELL_MAX: Final = 80
"""Characters of one cell of a table that is not the last."""
INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Kinds of characters that tell a terminal what to do, or are not to be seen."""
AGES: Final = ((86_400, "d"), (3_600, "h"), (60, "m"))
STATUS_STYLES: Final[Mapping[str, str]] = {
    "completed": "green", "failed": "red", "cancelled": "yellow", "compensation_failed": "bold red",
    "nondeterministic": "bold red", "quarantined": "bold red", "compensating": "magenta", "running": "blue",
}  # fmt: skip


def say(text: str = "") -> None:
    """A line on stdout, or several."""
    sys.stdout.write(f"{_harmless(text)}\n")


def say_json(value: object) -> None:
    """A JSON document in a line of its own."""
    say(json.dumps(plain(value), ensure_ascii=False))


def plain(value: Any) -> Any:
    """As JSON has it: tuples with names and dataclasses become objects, bytes their length."""
    by_name = getattr(value, "_asdict", None)
    match value:
        case enum.Enum():
            return value.value
        case bytes():
            return {"bytes": len(value)}
        case None | bool() | int() | float() | str():
            return value
        case _ if _is_mapping(value):
            return {str(name): plain(member) for name, member in value.items()}
        case tuple() if by_name is not None:
            named: dict[str, Any] = by_name()
            return {name: plain(member) for name, member in named.items()}
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _ if _is_iterable(value):
            return [plain(member) for member in value]
        case _:
            return str(value)


def _is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def _is_iterable(value: Any) -> TypeGuard[Iterable[Any]]:
    return isinstance(value, Iterable)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """One line a row. Into a pipe everything goes; on a terminal, columns without any value are left out, and a plain
    line ends at the edge. The first column, which people copy, is never cut.
    """
    cells = [[exact(first), *(clean(value) for value in others)] for first, *others in rows]
    if sys.stdout.isatty():
        columns, cells = _without_empty(columns, cells)
    if _draws():
        _draw(columns, cells)
        return
    lines = [list(columns), *cells]
    widths = [max(width(line[place]) for line in lines) for place in range(len(columns))]
    edge = max(shutil.get_terminal_size().columns, widths[0]) if sys.stdout.isatty() else None
    for line in lines:
        padded = [text + " " * (size - width(text)) for text, size in zip(line, widths, strict=True)]
        say(cut("  ".join(padded).rstrip(), edge))


def _without_empty(columns: Sequence[str], cells: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Without the columns in which no row has anything; all of them where there is no row."""
    kept = [place for place in range(len(columns)) if not cells or any(line[place] for line in cells)]
    return [columns[place] for place in kept], [[line[place] for place in kept] for line in cells]


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; what is empty is left out."""
    shown = [(name, clean(value, most=None)) for name, value in pairs if value not in ("", None, ())]
    size = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{name.ljust(size)}  {value}")


def clean(value: object, *, most: int | None = CELL_MAX) -> str:
    """One line of printable text."""
    text = "" if value is None else str(value.value if isinstance(value, enum.Enum) else value)
    text = _harmless(" ".join(text.split()))
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def exact(value: object) -> str:
    """One line of which every blank counts: what people copy."""
    return _harmless(str(value)).replace("\n", "\\n")


def _harmless(text: str) -> str:
    """Whatever would move the cursor, colour or turn round is written as in JSON, so JSON stays JSON. Lines end."""
    return "".join(_visible(letter) for letter in text) if not text.isprintable() else text


def _visible(letter: str) -> str:
    is_shown = letter == "\n" or unicodedata.category(letter) not in INVISIBLE
    return letter if is_shown else json.dumps(letter)[1:-1]


def width(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def cut(text: str, columns: int | None) -> str:
    """As much as fits into so many columns."""
    if columns is None or width(text) <= columns:
        return text
    while width(text) >= columns:
        text = text[:-1]
    return f"{text}…"


def age(us: int) -> str:
    """How long ago, in the largest unit, for narrow columns: `5s ago`, `33m ago`, `12d ago`."""
    seconds = max(us, 0) // 1_000_000
    size, unit = next(((size, unit) for size, unit in AGES if seconds >= size), (1, "s"))
    return f"{seconds // size}{unit} ago"


def time_of(us: int | None) -> str:
    if us is None:
        return ""
    try:
        return datetime.fromtimestamp(us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(us)


def note(text: str) -> None:
    """For the person, not for the pipe."""
    sys.stderr.write(f"{_harmless(text)}\n")


def _draws() -> bool:
    return sys.stdout.isatty() and find_spec("rich") is not None


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for place, column in enumerate(columns):
        drawn.add_column(column, overflow="fold", no_wrap=place == 0)
    for line in cells:
        drawn.add_row(*(Text(text, style=STATUS_STYLES.get(text, "")) for text in line))
    Console().print(drawn)


def counted(number: int, noun: str) -> str:
    """`1 instance`, `2,000 instances`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class Progress:
    """How far long work is, on stderr, where that is a terminal; rewritten in place, and gone at the end."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()
        self._began = False

    def tell(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{self._what}: {text}")
            sys.stderr.flush()
            self._began = True

    def end(self) -> None:
        if self._began:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
