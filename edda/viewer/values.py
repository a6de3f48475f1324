"""Stored values as trees that a page can draw: folded where they are large, cut where they are huge.

Pure: JSON text or bytes in, nodes out. It must not know HTML. Laws: whatever is stored is shown, as text; nothing that
was stored is run, imported or looked up; a value costs a bounded number of nodes, and says where more was left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from edda.viewer import words
from edda.viewer.loose import as_list, as_object

TEXT_MAX: Final = 256 * 1024
"""Characters of JSON that are drawn as a tree; more is shown as text, cut."""
PREVIEW_MAX: Final = 4_000
"""Characters of what is shown as text."""
STRING_MAX: Final = 300
"""Characters of a string that are shown before it is folded."""
CHILDREN_MAX: Final = 50
DEPTH_MAX: Final = 12
NODES_MAX: Final = 1_500
OPEN_UP_TO: Final = 16
"""Members of what is open from the beginning."""
BYTES_SHOWN: Final = 256
BRIEF_MAX: Final = 60
"""Characters in which a folded branch is told."""
BRIEF_VALUE_MAX: Final = 40
"""Of them, for one member."""

TAG: Final = "$edda"
"""Marks a value that is no JSON by itself: `{"$edda": "decimal", "v": "1.10"}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value, or a member of one."""

    kind: str
    """`object`, `array`, `string`, `number`, `word` (true, false, null), `text` (what could not be read) or `more`."""
    text: str = ""
    key: str | None = None
    """Its name in what it is a member of."""
    note: str = ""
    """What it is beyond JSON: `decimal`, `Order`, `bytes, 12 KiB`."""
    children: tuple[Node, ...] = ()
    rest: str = ""
    """Of a long string: what is folded away."""
    opened: bool = True
    brief: str = ""
    """Of what is folded: what is in it, in one line."""

    @property
    def is_branch(self) -> bool:
        return self.kind in ("object", "array")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A value on a page."""

    node: Node
    size: str
    whole: bool
    """False: something was left out, and the page links to all of it."""


def shown_json(text: str) -> Shown:
    """Of JSON text, as it is stored."""
    if len(text) > TEXT_MAX:
        return Shown(node=_plain(text), size=words.size(len(text.encode())), whole=False)
    try:
        tree = json.loads(text, parse_int=_number, parse_float=_number)
    except (ValueError, RecursionError):
        return Shown(node=_plain(text), size=words.size(len(text.encode())), whole=len(text) <= PREVIEW_MAX)
    drawing = _Drawing()
    return Shown(node=drawing.node(tree, None, 0), size=words.size(len(text.encode())), whole=drawing.whole)


def shown_bytes(blob: bytes) -> Shown:
    """Text where it is text, else the first bytes in hexadecimal."""
    try:
        text = blob[:PREVIEW_MAX].decode()
    except UnicodeDecodeError:
        text = ""
    if text and text.isprintable():
        node = Node(kind="string", text=text, note=f"bytes, {words.size(len(blob))}")
        return Shown(node=node, size=words.size(len(blob)), whole=len(blob) <= PREVIEW_MAX)
    node = Node(kind="text", text=hex_lines(blob[:BYTES_SHOWN]), note=f"bytes, {words.size(len(blob))}")
    return Shown(node=node, size=words.size(len(blob)), whole=len(blob) <= BYTES_SHOWN)


def shown(text: str | None, blob: bytes | None) -> Shown | None:
    """None where there is neither."""
    if text is not None:
        return shown_json(text)
    return None if blob is None else shown_bytes(blob)


def shown_arguments(text: str | None, names: tuple[str, ...] = ()) -> Shown | None:
    """Of recorded arguments `{"args": [...], "kwargs": {...}}`: by name, as far as the names are known."""
    if text is None:
        return None
    if len(text) > TEXT_MAX:
        return shown_json(text)
    try:
        tree = json.loads(text, parse_int=_number, parse_float=_number)
    except (ValueError, RecursionError):
        return shown_json(text)
    call = as_object(tree) or {}
    args, kwargs = as_list(call.get("args")), as_object(call.get("kwargs"))
    if args is None or kwargs is None:
        return shown_json(text)
    named = {names[place] if place < len(names) else str(place): value for place, value in enumerate(args)}
    drawing = _Drawing()
    node = drawing.node({**named, **kwargs}, None, 0)
    return Shown(node=node, size=words.size(len(text.encode())), whole=drawing.whole)


def brief_of(children: Sequence[Node], length: int) -> str:
    """Members in one line, as far as they are short: `sku: teapot, quantity: 1`."""
    parts: list[str] = []
    room = length
    for child in children:
        text = (
            words.end_cut(child.text.replace("\n", " "), BRIEF_VALUE_MAX)
            if not child.is_branch
            else child.note or "{…}"
        )
        parts.append(f"{child.key}: {text}" if child.key is not None and not child.key.isdecimal() else text)
        room -= len(parts[-1]) + 2
        if room <= 0:
            break
    return words.end_cut(", ".join(parts), length)


def one_line(value: Shown | None, length: int) -> str:
    """A whole value in one line, for a list of many."""
    if value is None:
        return ""
    node = value.node
    return brief_of(node.children, length) if node.is_branch else words.end_cut(node.text.replace("\n", " "), length)


def hex_lines(data: bytes) -> str:
    return "\n".join(
        f"{start:04x}  {data[start : start + 16].hex(' '):<47}  {_visible(data[start : start + 16])}"
        for start in range(0, len(data), 16)
    )


class _Drawing:
    """One tree; counts what it costs."""

    def __init__(self) -> None:
        self.whole = True
        self._left = NODES_MAX

    def node(self, value: Any, key: str | None, depth: int) -> Node:
        self._left -= 1
        if isinstance(value, _Number):
            return Node(kind="number", text=value.digits, key=key)
        if isinstance(value, str):
            return self._string(value, key)
        if (members := as_object(value)) is not None:
            if TAG in members and depth < DEPTH_MAX:
                return self._tagged(members, key, depth)
            return self._branch("object", members.items(), key, depth)
        if (items := as_list(value)) is not None:
            return self._branch("array", ((str(place), item) for place, item in enumerate(items)), key, depth)
        return Node(kind="word", text=json.dumps(value), key=key)

    def _string(self, value: str, key: str | None) -> Node:
        if len(value) <= STRING_MAX and value.count("\n") <= 4:
            return Node(kind="string", text=value, key=key)
        head, rest = value[:STRING_MAX], value[STRING_MAX:]
        if len(rest) > PREVIEW_MAX:
            self.whole = False
            rest = rest[:PREVIEW_MAX] + "…"
        return Node(kind="string", text=head, rest=rest, key=key, note=f"{len(value):,} characters", opened=False)

    def _tagged(self, value: dict[str, Any], key: str | None, depth: int) -> Node:
        """What a value is that JSON cannot say; its inside is drawn as what it is."""
        name = value.get("t") if isinstance(value.get("t"), str) else value[TAG]
        note = str(name).rpartition(":")[2] if isinstance(name, str) else json.dumps(_bare(name))
        inside = value.get("v")
        node = self.node(inside if "v" in value else {k: v for k, v in value.items() if k != TAG}, key, depth + 1)
        return replace(node, note=note)

    def _branch(self, kind: str, members: Iterable[tuple[str, Any]], key: str | None, depth: int) -> Node:
        pairs = list(members)
        many = f"{len(pairs)} item{'s' if len(pairs) != 1 else ''}" if kind == "array" else ""
        if not pairs:
            return Node(kind="word", text="[]" if kind == "array" else "{}", key=key)
        if depth >= DEPTH_MAX:
            self.whole = False
            return Node(kind="more", text="… deeper than is drawn here", key=key)
        children: list[Node] = []
        for name, member in pairs[:CHILDREN_MAX]:
            if self._left <= 0:
                break
            children.append(self.node(member, name, depth + 1))
        if len(children) < len(pairs):
            self.whole = False
            children.append(Node(kind="more", text=f"… and {len(pairs) - len(children):,} more"))
        opened = depth == 0 or (len(pairs) <= OPEN_UP_TO and depth < 3)
        brief = brief_of(children, BRIEF_MAX)
        return Node(kind=kind, key=key, children=tuple(children), note=many, opened=opened, brief=brief)


class _Number:
    """A number as it was written: no digit is lost, none is made up."""

    __slots__ = ("digits",)

    def __init__(self, digits: str) -> None:
        self.digits = words.end_cut(digits, 400)


def _number(digits: str) -> Any:
    return _Number(digits)


def _bare(value: Any) -> Any:
    return value.digits if isinstance(value, _Number) else str(type(value).__name__)


def _plain(text: str) -> Node:
    return Node(kind="text", text=words.end_cut(text, PREVIEW_MAX))


def _visible(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in data)
