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
from typing import Final, NamedTuple, TypeAlias

from pydantic_core import from_json, to_json

from edda.cloudevents.errors import CloudEventError, Code

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_WHITE_SPACE: Final = b" \t\r\n"

# Stand for the escapes `\\` and `\"` while strings are looked for. No valid JSON text holds these bytes.
_BACKSLASH: Final = b"\x01\x01"
_QUOTE: Final = b"\x02\x02"

_NEEDLESS = re.compile(rb"\\(?:u[0-9A-Fa-f]{4}(?:\\u[0-9A-Fa-f]{4})*+|/)")

_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))

_scanner = JSONDecoder(parse_float=str, parse_int=str)


class Document(NamedTuple):
    value: JsonValue
    """As Python reads it: for looking at, not for keeping (decimals are rounded)."""
    text: bytes
    """In normal form."""


def read(body: bytes, what: str, depth_max: int) -> Document:
    """JSON that every reader reads alike, else CloudEventError; `what` names it there."""
    body = body.removeprefix(BOM_UTF8)
    value = _value(body, what)
    text = _text_that_says(value, body, what)
    check_depth(text, what, depth_max)
    return Document(value, text)


def check_depth(text: bytes, what: str, depth_max: int) -> None:
    """Of JSON in normal form."""
    if text.count(b"[") + text.count(b"{") > depth_max and _depth(text, depth_max) > depth_max:
        raise CloudEventError("too_deep", f"{what} is nested more than {depth_max} deep")


def length(body: bytes, what: str) -> int | None:
    """How many elements an array has; None for other valid JSON."""
    value = _value(body.removeprefix(BOM_UTF8), what)
    return len(value) if isinstance(value, list) else None


def elements(body: bytes, count: int) -> list[bytes]:
    """The texts of the elements of an array that is valid JSON; each is still to be read."""
    found: list[bytes] = []
    text, start = _normal(body.removeprefix(BOM_UTF8)).decode(), 1
    for _ in range(count):
        end = _scanner.raw_decode(text, start)[1]
        found.append(text[start:end].encode())
        start = end + 1
    return found


def _value(body: bytes, what: str) -> JsonValue:
    try:
        value: JsonValue = from_json(body, allow_inf_nan=False)
    except ValueError as error:  # its message holds a position, and nothing of the text
        why = str(error)
        code: Code = "too_deep" if "recursion" in why else "invalid_json"
        raise CloudEventError(code, f"{what} is not valid JSON: {why}") from None
    return value


def _text_that_says(value: JsonValue, body: bytes, what: str) -> bytes:
    """The normal form of the body. Refused if the value that was read from it is not what it says.

    Written again, the value has the same strings as the normal form. So `":` within strings is there as often, and a
    member that another one of the same name has replaced is missed in the count; the same with `Infinity`.
    """
    again = to_json(value)
    if again == body:
        return body
    text = _normal(body)
    if again.count(b'":') != text.count(b'":'):
        raise CloudEventError("duplicate_member", f"{what} has an object with the same name twice")
    if again.count(b"Infinity") != text.count(b"Infinity"):
        raise CloudEventError("invalid_json", f"{what} holds a number that is too large for a double")
    return text


def _normal(body: bytes) -> bytes:
    """Valid JSON in normal form."""
    if b"\\" not in body:
        return _without_white_space(body)
    body = _without_white_space(_masked(_without_needless_escapes(body)))
    return body.replace(_QUOTE, b'\\"').replace(_BACKSLASH, b"\\\\")


def _without_white_space(masked: bytes) -> bytes:
    parts = masked.split(b'"')
    between = b"\0".join(parts[::2])
    outside = between.translate(None, _WHITE_SPACE)
    if len(outside) == len(between):
        return masked
    parts[::2] = outside.split(b"\0")
    return b'"'.join(parts)


def _without_needless_escapes(body: bytes) -> bytes:
    body = body.replace(b"\\\\", _BACKSLASH)  # from here on a backslash begins an escape
    if b"\\u" in body or b"\\/" in body:
        written = _Escapes()
        body = _NEEDLESS.sub(lambda match: written[match.group()], body)
    return body


def _masked(text: bytes) -> bytes:
    """No quote but those around strings."""
    return text.replace(b"\\\\", _BACKSLASH).replace(b'\\"', _QUOTE)


class _Escapes(dict[bytes, bytes]):
    """Characters as they were escaped -> as short as can be."""

    def __missing__(self, escaped: bytes) -> bytes:
        self[escaped] = written = to_json(from_json(b'"' + escaped + b'"'))[1:-1]
        return written


def _depth(text: bytes, depth_max: int) -> int:
    """How deep, or one more than `depth_max` if deeper: takes off the innermost pairs, layer by layer."""
    outside = b"".join(_masked(text).split(b'"')[::2])
    brackets = outside.translate(_BRACKETS, _NOT_BRACKETS)
    depth = 0
    while brackets and depth <= depth_max:
        brackets = brackets.replace(b"[]", b"")
        depth += 1
    return depth
