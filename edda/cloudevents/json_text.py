"""JSON text: validated, and brought into the one form in which it is stored and compared.

The normal form is the text as it was sent, without the white space between tokens and with every string written with
as few escapes as JSON allows. So numbers keep each digit (`1`, `1.0` and `1.10` stay three different texts; no
integer or decimal is rounded) and members keep their order.

What is refused: what RFC 8259 does not know (`NaN`, lone surrogates, bytes that are no UTF-8), a name twice in one
object (readers disagree about which one counts), a number that a double cannot reach (it would be read as infinity),
integers of more than 4,300 digits, and depth. A byte order mark is skipped.

Works on bytes and in few passes, all of them in C: this is where a request's time goes.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from json import JSONDecoder
from math import isinf
from typing import Final, NamedTuple, TypeAlias

from pydantic_core import from_json, to_json

from edda.cloudevents.errors import CloudEventError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_WHITE_SPACE: Final = b" \t\r\n"

# Stand for the escapes `\\` and `\"` while strings are looked for. No valid JSON text holds these bytes.
_BACKSLASH: Final = b"\x01\x01"
_QUOTE: Final = b"\x02\x02"

_NEEDLESS = re.compile(rb"(?:\\u[0-9A-Fa-f]{4})++|\\/")

_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))

DIGITS_OF_A_DOUBLE: Final = 308
"""Before the point: a number with more of them may be beyond the largest double."""

_MAYBE_HUGE = re.compile(rb"[0-9.]++[eE]\+?[0-9]++|[0-9]{309,}+\.[0-9]++")

_CONTAINERS: Final = frozenset[type]({dict, list})

_scanner = JSONDecoder(parse_float=str, parse_int=str)


class Document(NamedTuple):
    value: JsonValue
    """As Python reads it: for looking at, not for keeping (decimals are rounded)."""
    text: bytes
    """In normal form."""
    outside: bytes
    """The text without its strings."""


def read(body: bytes, what: str) -> Document:
    """Valid JSON, else CloudEventError; `what` names it there. Neither depth nor names are checked yet."""
    if body.startswith(BOM_UTF8):
        body = body[len(BOM_UTF8) :]
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:  # its message holds a position, and nothing of the text
        raise _not_read(what, str(error)) from None
    document = Document(value, *_normal(body))
    if _has_infinity(document.outside):
        raise CloudEventError("invalid_json", f"{what} holds a number that is too large for a double")
    return document


def check(document: Document, what: str, depth_max: int) -> None:
    """No name twice in one object, and not deeper than `depth_max`."""
    outside = document.outside
    if outside.count(b"[") + outside.count(b"{") > depth_max and _depth(outside, depth_max) > depth_max:
        raise CloudEventError("too_deep", f"{what} is nested more than {depth_max} deep")
    if outside.count(b":") != _members(document.value):
        raise CloudEventError("duplicate_member", f"{what} has an object with the same name twice")


def normal_text(body: bytes, what: str, depth_max: int) -> str:
    """JSON text in normal form, else CloudEventError."""
    document = read(body, what)
    check(document, what, depth_max)
    return document.text.decode()


def end_of_value(text: str, start: int) -> int:
    """Where the JSON value ends that begins there, in a text that is known to be valid."""
    return _scanner.raw_decode(text, start)[1]


def _not_read(what: str, why: str) -> CloudEventError:
    return CloudEventError("too_deep" if "recursion" in why else "invalid_json", f"{what} is not valid JSON: {why}")


def _normal(body: bytes) -> tuple[bytes, bytes]:
    """(text in normal form, what of it is not in a string) of valid JSON."""
    escapes = b"\\" in body
    if escapes:
        body = _masked(body)
    parts = body.split(b'"')
    between = b"\0".join(parts[::2])
    outside = between.translate(None, _WHITE_SPACE)
    if len(outside) != len(between):
        parts[::2] = outside.split(b"\0")
        body = b'"'.join(parts)
    if escapes:
        body = body.replace(_QUOTE, b'\\"').replace(_BACKSLASH, b"\\\\")
    return body, outside


def _masked(body: bytes) -> bytes:
    """No escape but the needed ones, and no quote within a string."""
    body = body.replace(b"\\\\", _BACKSLASH)  # from here on a backslash begins an escape
    if b"\\u" in body or b"\\/" in body:
        written = _Escapes()
        body = _NEEDLESS.sub(lambda match: written[match.group()], body).replace(b"\\\\", _BACKSLASH)
    return body.replace(b'\\"', _QUOTE)


class _Escapes(dict[bytes, bytes]):
    """Characters as they were escaped -> as short as can be."""

    def __missing__(self, escaped: bytes) -> bytes:
        self[escaped] = written = to_json(from_json(b'"' + escaped + b'"'))[1:-1]
        return written


def _has_infinity(outside: bytes) -> bool:
    """Looks closely only at texts that have an exponent, or something very long."""
    letters = outside.count(b"e") - outside.count(b"true") - outside.count(b"false")
    if letters or b"E" in outside or _is_long(outside):
        return any(isinf(float(number)) for number in _MAYBE_HUGE.findall(outside))
    return False


def _is_long(outside: bytes) -> bool:
    return (
        len(outside) > DIGITS_OF_A_DOUBLE
        and b"." in outside
        and max(map(len, outside.split(b","))) > DIGITS_OF_A_DOUBLE
    )


def _depth(outside: bytes, depth_max: int) -> int:
    """How deep, or one more than `depth_max` if deeper: takes off the innermost pairs, layer by layer."""
    brackets = outside.translate(_BRACKETS, _NOT_BRACKETS)
    depth = 0
    while brackets and depth <= depth_max:
        brackets = brackets.replace(b"[]", b"")
        depth += 1
    return depth


def _members(value: JsonValue) -> int:
    """Members of all objects, each name counted once."""
    if isinstance(value, dict):
        return len(value) + sum([_members(inner) for inner in value.values() if type(inner) in _CONTAINERS])
    if isinstance(value, list):
        return sum([_members(inner) for inner in value if type(inner) in _CONTAINERS])
    return 0
