"""What somebody typed into the form of a shape: read as data, drawn again with what was typed, told what is wrong.

Pure. A form is a flat mapping of texts; the name of each is the path to its place in the data:
`arguments/order/items/0/sku`. Beside a list stands how many rows it has (`arguments/order/items#`), beside an extra
whether it is there (`arguments/order/gift?`).

Laws: what was typed is drawn again, letter by letter, whatever is wrong with it. Text that is not what its shape says
goes on as text: who validates says what is wrong. Only what is no JSON is found here, for there text may be right, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from edda.core.tree import is_place
from edda.viewer.loose import as_list, as_object
from edda.viewer.shapes import Kind, Shape

ROOT: Final = "arguments"
ROWS_MAX: Final = 100
"""Of a list in a form."""
_ESCAPES: Final = (("~", "~0"), ("/", "~1"), ("#", "~2"), ("?", "~3"), (" ", "~4"))
_NUMBER: Final = re.compile(r"-?\d{1,400}(\.\d+)?([eE][+-]?\d+)?")

Typed = Mapping[str, str]


class Left(Enum):
    OUT = "out"
    """What nobody gave: the code's default counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A shape at its place, as a page draws it."""

    shape: Shape
    path: str
    label: str
    text: str = ""
    error: str = ""
    there: bool = True
    """False: an extra that nobody asked for."""
    members: tuple[Field, ...] = ()
    """Of a group, or the rows of a list."""


@dataclass(slots=True)
class Reading:
    """`value` is for whoever validates; `problems`, by path, say what is no data at all."""

    value: Any = None
    problems: dict[str, str] = field(default_factory=dict[str, str])


# -- filling in --------------------------------------------------------------------------------------------------------


def filled(shape: Shape, value: Any = None, path: str = ROOT) -> dict[str, str]:
    """As if somebody had typed this value, or the defaults where there is none."""
    value = shape.default if value is None else value
    match shape.kind:
        case Kind.GROUP:
            return _filled_group(shape, as_object(value), path)
        case Kind.LIST:
            return _filled_list(shape, as_list(value), path)
        case Kind.YES:
            return {path: "1"} if value is True else {}
        case _:
            return {path: _text_of(shape, value)}


def _filled_group(shape: Shape, value: Mapping[str, Any] | None, path: str) -> dict[str, str]:
    if shape.is_extra and value is None:
        return {}
    typed = {f"{path}?": "1"} if shape.is_extra else {}
    for member in shape.members:
        typed |= filled(member, (value or {}).get(member.key), below(path, member.key))
    return typed


def _filled_list(shape: Shape, value: Sequence[Any] | None, path: str) -> dict[str, str]:
    if shape.is_extra and value is None:
        return {}
    rows = [None] if value is None and shape.required else list(value or ())[:ROWS_MAX]
    typed = {f"{path}#": str(len(rows))} | ({f"{path}?": "1"} if shape.is_extra else {})
    for place, row in enumerate(rows):
        typed |= filled(shape.members[0], row, below(path, place))
    return typed


def _text_of(shape: Shape, value: Any) -> str:
    if value is None:
        return ""
    if shape.kind is Kind.CHOICE:
        return str(shape.choices.index(value)) if value in shape.choices else ""
    if shape.kind is Kind.JSON:
        return json.dumps(value, ensure_ascii=False, indent=2)
    return value if isinstance(value, str) else json.dumps(value)


# -- reading -----------------------------------------------------------------------------------------------------------


def read(shape: Shape, typed: Typed) -> Reading:
    reading = Reading()
    reading.value = _read(shape, typed, ROOT, reading.problems)
    return reading


def _read(shape: Shape, typed: Typed, path: str, problems: dict[str, str]) -> Any:
    if shape.is_extra and f"{path}?" not in typed:
        return _nothing(shape)
    match shape.kind:
        case Kind.GROUP:
            members = {one.key: _read(one, typed, below(path, one.key), problems) for one in shape.members}
            return {key: value for key, value in members.items() if value is not Left.OUT}
        case Kind.LIST:
            rows = [_read(shape.members[0], typed, below(path, n), problems) for n in range(rows_of(typed, path))]
            return [None if row is Left.OUT else row for row in rows]
        case Kind.YES:
            return path in typed
        case Kind.TEXT:
            return _read_text(shape, typed.get(path, ""))
        case _:
            text = typed.get(path, "").strip()
            return _read_word(shape, text, path, problems) if text else _nothing(shape)


def _read_text(shape: Shape, text: str) -> Any:
    """Nothing typed is an empty text, unless it may be None, or the code would rather make its own."""
    meant = not shape.nullable and (shape.required or isinstance(shape.default, str))
    return text if text or meant else _nothing(shape)


def _read_word(shape: Shape, text: str, path: str, problems: dict[str, str]) -> Any:
    if shape.kind is Kind.NUMBER:
        return json.loads(text) if _NUMBER.fullmatch(text) and _is_json(text) else text
    if shape.kind is Kind.CHOICE:
        return shape.choices[int(text)] if is_place(text) and int(text) < len(shape.choices) else text
    if shape.kind is Kind.JSON:
        if not _is_json(text):
            problems[path] = "This is no JSON"
            return None
        return json.loads(text)
    return text


def _nothing(shape: Shape) -> Any:
    return None if shape.nullable else Left.OUT


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def rows_of(typed: Typed, path: str) -> int:
    count = typed.get(f"{path}#", "0")
    return min(ROWS_MAX, int(count)) if count.isascii() and count.isdecimal() and len(count) < 4 else 0


# -- adding and taking away --------------------------------------------------------------------------------------------


def changed(shape: Shape, typed: Typed, wish: str) -> dict[str, str] | None:
    """After `add:PATH` (a row, an extra) or `drop:PATH`; None for what is no such wish."""
    verb, _, path = wish.partition(":")
    if verb == "add":
        return _added(shape, typed, path)
    return _dropped(typed, path) if verb == "drop" else None


def _added(shape: Shape, typed: Typed, path: str) -> dict[str, str] | None:
    found = shape_at(shape, path)
    if found is None:
        return None
    if found.is_extra and f"{path}?" not in typed:
        return {**typed, **filled(found, [] if found.kind is Kind.LIST else {}, path)}
    rows = rows_of(typed, path)
    if found.kind is not Kind.LIST or rows >= ROWS_MAX:
        return None
    return {**typed, **filled(found.members[0], None, below(path, rows)), f"{path}#": str(rows + 1)}


def _dropped(typed: Typed, path: str) -> dict[str, str] | None:
    if f"{path}?" in typed:
        return {name: text for name, text in typed.items() if not _is_in(name, path)}
    whole, _, place = path.rpartition("/")
    rows = rows_of(typed, whole)
    if not is_place(place) or int(place) >= rows:
        return None
    left = {name: text for name, text in typed.items() if not _is_in(name, path)}
    for row in range(int(place) + 1, rows):
        here, there = below(whole, row), below(whole, row - 1)
        left = {(there + name.removeprefix(here) if _is_in(name, here) else name): t for name, t in left.items()}
    return {**left, f"{whole}#": str(rows - 1)}


def _is_in(name: str, path: str) -> bool:
    return name == path or name.startswith((f"{path}/", f"{path}#", f"{path}?"))


def shape_at(shape: Shape, path: str) -> Shape | None:
    """By the path of a form."""
    root, *keys = path.split("/")
    found: Shape | None = shape if root == ROOT else None
    for key in keys:
        found = _member(found, key) if found is not None else None
    return found


def _member(shape: Shape, key: str) -> Shape | None:
    if shape.kind is Kind.LIST:
        return shape.members[0] if is_place(key) else None
    return next((member for member in shape.members if _escaped(member.key) == key), None)


# -- drawing -----------------------------------------------------------------------------------------------------------


def drawn(shape: Shape, typed: Typed, errors: Mapping[str, str], path: str = ROOT, label: str | None = None) -> Field:
    """Each error at its path; see `placed`."""
    there = not shape.is_extra or f"{path}?" in typed
    return Field(
        shape=shape,
        path=path,
        label=shape.label if label is None else label,
        text=typed.get(path, ""),
        error=errors.get(path, ""),
        there=there,
        members=tuple(_drawn_members(shape, typed, errors, path)) if there else (),
    )


def _drawn_members(shape: Shape, typed: Typed, errors: Mapping[str, str], path: str) -> Iterator[Field]:
    if shape.kind is Kind.LIST:
        for row in range(rows_of(typed, path)):
            yield drawn(shape.members[0], typed, errors, below(path, row), str(row + 1))
    else:
        for member in shape.members:
            yield drawn(member, typed, errors, below(path, member.key))


def placed(shape: Shape, typed: Typed, problems: Sequence[tuple[Sequence[str | int], str]]) -> dict[str, str]:
    """What is wrong at places in the data, by the paths of the fields that hold them."""
    fields = {one.path for one in _every(drawn(shape, typed, {}))}
    errors: dict[str, str] = {}
    for place, text in problems:
        path = ROOT
        for key in place:
            path = below(path, key) if below(path, key) in fields else path
        errors[path] = f"{errors[path]}; {text}" if path in errors else text
    return errors


def _every(one: Field) -> Iterator[Field]:
    yield one
    for member in one.members:
        yield from _every(member)


def below(path: str, key: str | int) -> str:
    return f"{path}/{_escaped(str(key))}"


def _escaped(key: str) -> str:
    for mark, escape in _ESCAPES:
        key = key.replace(mark, escape)
    return key
