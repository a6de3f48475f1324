"""Events, and the many ways to write each of them. Written apart from the codec: no code is shared with it."""

from __future__ import annotations

import json
from base64 import b64encode
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

from hypothesis import strategies as st

from edda.core.event import CloudEvent

NONCHARACTERS = "".join(
    [chr(code) for code in range(0xFDD0, 0xFDF0)]
    + [chr(plane * 0x10000 + last) for plane in range(17) for last in (0xFFFE, 0xFFFF)]
)
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=NONCHARACTERS)
# White space at the ends is lost in a header that does not encode it, so senders must; quotes and percent signs, too.
TEXTS = st.text(CHARACTERS | st.sampled_from(' "%\\,:'), min_size=1, max_size=20)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20).filter(
    lambda name: (
        name not in {"data", "specversion", "id", "source", "type", "subject", "time"}
        and name not in {"datacontenttype", "dataschema"}
    )
)
SOURCES = st.from_regex(r"/[a-z0-9%:@]{0,8}", fullmatch=True).filter(lambda text: "%" not in text) | st.sampled_from(
    ["urn:a:b", "https://a.b/c?d=e#f", "a", "mailto:a@b", "#x", "?y", "//host:80", "/a%20b", "http://[::1]/"]
)
TIMES = st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.sampled_from(
    ["2024-02-29T23:59:60.123456789+23:59", "0001-01-01t00:00:00z"]
)
JSON_TYPES = st.sampled_from(["application/json", "text/JSON", "a/b+json; charset=utf-8", "application/vnd.x+json"])
OTHER_TYPES = st.sampled_from(["text/plain; charset=utf-8", "application/octet-stream", "image/png", "a/b"])


class Number(NamedTuple):
    digits: str


NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?", fullmatch=True).map(Number)
STRINGS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/:,{}[]\n\x00\u2028'), max_size=10)
LEAVES = st.none() | st.booleans() | NUMBERS | STRINGS | st.sampled_from(["data", '":', ',"data":', "Infinity", "NaN"])
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(STRINGS | st.sampled_from(["data", '"data":', "id"]), inner, max_size=4)
    ),
    max_leaves=12,
)


class Written(NamedTuple):
    """An event, and its JSON data as a tree."""

    event: CloudEvent
    tree: Any


def written(tree: object, chance: Random | None = None) -> str:
    """JSON: in normal form, or with needless white space and escapes, as `chance` has it."""
    if isinstance(tree, Number):
        return tree.digits
    if isinstance(tree, dict):
        pairs = [f"{string(key, chance)}{gap(chance)}:{gap(chance)}{written(tree[key], chance)}" for key in tree]
        return "{" + gap(chance) + (gap(chance) + "," + gap(chance)).join(pairs) + gap(chance) + "}"
    if isinstance(tree, list):
        items = [written(item, chance) for item in tree]
        return "[" + gap(chance) + (gap(chance) + "," + gap(chance)).join(items) + gap(chance) + "]"
    return string(tree, chance) if isinstance(tree, str) else json.dumps(tree)


def gap(chance: Random | None) -> str:
    return "".join(chance.choices(" \t\r\n", k=chance.randrange(3))) if chance else ""


def string(text: str, chance: Random | None) -> str:
    if chance is None:
        return json.dumps(text, ensure_ascii=False)
    return '"' + "".join(character(one, chance) for one in text) + '"'


def character(one: str, chance: Random) -> str:
    if one == "/" and chance.random() < 0.5:
        return "\\/"
    if chance.random() < 0.7:
        return json.dumps(one, ensure_ascii=False)[1:-1]
    units = one.encode("utf-16-be").hex()
    units = units.upper() if chance.random() < 0.5 else units
    return "".join("\\u" + units[at : at + 4] for at in range(0, len(units), 4))


def header_value(text: str, chance: Random) -> bytes:
    """As section 3.1.3.2 of the HTTP binding has it, more encoded than need be, or quoted as older versions had it."""
    if chance.random() < 0.2:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%25")
        return f'"{quoted}"'.encode()
    encoded = b""
    for byte in text.encode():
        if not 0x21 <= byte <= 0x7E or byte in b'"%' or chance.random() < 0.2:
            encoded += f"%{byte:02x}".encode() if chance.random() < 0.5 else f"%{byte:02X}".encode()
        else:
            encoded += bytes([byte])
    return encoded


@st.composite
def events(draw: st.DrawFn) -> Written:
    tree: object = None
    data: dict[str, Any] = {}
    match draw(st.sampled_from(["json", "blob", "untyped", "none", "none of JSON"])):
        case "json":
            tree = draw(TREES)
            data = {"datacontenttype": draw(JSON_TYPES), "json": written(tree)}
        case "blob":
            data = {"datacontenttype": draw(OTHER_TYPES), "blob": draw(st.binary(max_size=40))}
        case "untyped":
            data = {"blob": draw(st.binary(min_size=1, max_size=40))}
        case "none of JSON":
            data = {"datacontenttype": draw(JSON_TYPES)}
    event = CloudEvent(
        id=draw(TEXTS),
        source=draw(SOURCES),
        type=draw(TEXTS),
        subject=draw(st.none() | TEXTS),
        time=draw(st.none() | TIMES),
        dataschema=draw(st.none() | st.sampled_from(["urn:x", "https://a.b/c#d"])),
        extensions=MappingProxyType(draw(st.dictionaries(NAMES, TEXTS | st.just(""), max_size=3))),
        **data,
    )
    return Written(event, tree)


def attributes(event: CloudEvent) -> dict[str, str]:
    core = {name: getattr(event, name) for name in ("id", "source", "type", "subject", "time", "dataschema")}
    return (
        {"specversion": "1.0"}
        | {name: value for name, value in core.items() if value is not None}
        | dict(event.extensions)
    )


def in_binary(one: Written, chance: Random) -> tuple[list[tuple[bytes, bytes]], bytes]:
    headers = [
        (f"{chance.choice(['ce-', 'Ce-', 'CE-'])}{name}".encode(), header_value(value, chance))
        for name, value in attributes(one.event).items()
    ]
    if one.event.datacontenttype is not None:
        headers.append((b"Content-Type", b" " + one.event.datacontenttype.encode() + b"\t"))
    headers.append((b"host", b"localhost"))
    chance.shuffle(headers)
    if one.event.json is not None:
        return headers, (gap(chance) + written(one.tree, chance) + gap(chance)).encode()
    return headers, one.event.blob or b""


def in_json(one: Written, chance: Random) -> str:
    event = one.event
    members = {name: string(value, chance) for name, value in attributes(event).items()}
    if event.datacontenttype is not None:
        members["datacontenttype"] = string(event.datacontenttype, chance)
    if event.json is not None:
        if event.datacontenttype == "application/json" and chance.random() < 0.5:
            del members["datacontenttype"]
        members["data"] = written(one.tree, chance)
    elif event.blob is not None:
        members["data_base64"] = string(b64encode(event.blob).decode(), chance)
    unset = {name: "null" for name in ("subject", "time", "nothing") if name not in members and chance.random() < 0.2}
    pairs = [f"{string(name, chance)}{gap(chance)}:{gap(chance)}{value}" for name, value in (members | unset).items()]
    chance.shuffle(pairs)
    return gap(chance) + "{" + (gap(chance) + "," + gap(chance)).join(pairs) + "}" + gap(chance)
