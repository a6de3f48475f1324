"""The rules for context attributes, in whatever mode they came (CloudEvents 1.0.2, sections 3 and 4).

Takes attributes as text, each value in its canonical form, and knows neither headers nor JSON.

What is refused: a missing or empty `id`, `source` or `type`; another version than 1.0; a `source` that is no URI
reference, a `dataschema` that is no URI, a `time` that RFC 3339 does not know; names other than [a-z0-9]; control
characters, surrogates and noncharacters in values.
"""

from __future__ import annotations

import re
from calendar import isleap
from types import MappingProxyType
from typing import Final

from edda.cloudevents.errors import CloudEventError, quoted
from edda.cloudevents.limits import Limits
from edda.core.event import CloudEvent

SPECVERSION: Final = "1.0"

NO_EXTENSIONS: Final = MappingProxyType[str, str]({})

CORE: Final = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"})

INTEGERS: Final = range(-(2**31), 2**31)
"""What the type Integer holds."""

_NAME = re.compile(r"[a-z0-9]+", re.ASCII)

_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)

_TIME = re.compile(
    r"([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)"
    r"(?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)

_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

# RFC 3986. Possessive, so that no text can make it try twice; `%` must be followed by two hexadecimal digits.
_UNRESERVED = r"A-Za-z0-9\-._~!$&'()*+,;="
_AUTHORITY = rf"//(?:(?:[{_UNRESERVED}:]|%[0-9A-Fa-f]{{2}})*@)?(?:\[[{_UNRESERVED}:]++\]|" + (
    rf"(?:[{_UNRESERVED}]|%[0-9A-Fa-f]{{2}})*+)(?::[0-9]*+)?(?=[/?#]|\Z)"
)
_AFTER_SCHEME = (
    rf"(?:{_AUTHORITY}|(?!//))(?:[{_UNRESERVED}:@/]++|%[0-9A-Fa-f]{{2}})*+"
    rf"(?:\?(?:[{_UNRESERVED}:@/?]++|%[0-9A-Fa-f]{{2}})*+)?(?:\#(?:[{_UNRESERVED}:@/?]++|%[0-9A-Fa-f]{{2}})*+)?"
)
_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]*+:"
_URI = re.compile(_SCHEME + _AFTER_SCHEME)
_URI_REFERENCE = re.compile(rf"(?:{_SCHEME}|(?![^/?#]*:)){_AFTER_SCHEME}")


class Attributes:
    """The attributes of one event while it is read, by name; `datacontenttype` belongs to the data and is not here."""

    __slots__ = ("_left", "_limits")

    def __init__(self, attributes: dict[str, str], limits: Limits) -> None:
        self._left = attributes
        self._limits = limits

    def event(self, datacontenttype: str | None, json: str | None, blob: bytes | None) -> CloudEvent:
        """Checks everything, and takes the dictionary apart."""
        self._check_version(self._left.pop("specversion", None))
        identity = self._key("id", self._limits.id_chars)
        source, kind = self._source(), self._key("type", self._limits.type_chars)
        subject, time, schema = self._optional("subject"), self._time(), self._dataschema()
        extensions = self._extensions() if self._left else NO_EXTENSIONS
        return CloudEvent(identity, source, kind, subject, time, datacontenttype, schema, json, blob, extensions)

    @staticmethod
    def _check_version(version: str | None) -> None:
        if version is None:
            raise missing("specversion")
        if version != SPECVERSION:
            raise CloudEventError("invalid_attribute", "specversion must be '1.0': no other version is known here")

    def _required(self, name: str) -> str:
        value = self._optional(name)
        if value is None:
            raise missing(name)
        return value

    def _key(self, name: str, chars_max: int) -> str:
        value = self._required(name)
        if len(value) > chars_max:
            raise CloudEventError("attribute_too_large", f"{name} has more than {chars_max} characters")
        return value

    def _optional(self, name: str) -> str | None:
        value = self._left.pop(name, None)
        if value is not None:
            if not value:
                raise CloudEventError("invalid_attribute", f"{name} must not be empty")
            check_text(name, value, self._limits)
        return value

    def _source(self) -> str:
        source = self._required("source")
        if _URI_REFERENCE.fullmatch(source) is None:
            raise CloudEventError("invalid_attribute", "source must be a URI reference (RFC 3986)")
        return source

    def _dataschema(self) -> str | None:
        schema = self._optional("dataschema")
        if schema is not None and _URI.fullmatch(schema) is None:
            raise CloudEventError("invalid_attribute", "dataschema must be an absolute URI (RFC 3986)")
        return schema

    def _time(self) -> str | None:
        time = self._optional("time")
        if time is not None and not _is_time(time):
            raise CloudEventError("invalid_attribute", "time must be as in RFC 3339: '2026-11-22T21:09:00.5Z'")
        return time

    def _extensions(self) -> MappingProxyType[str, str]:
        for name, value in self._left.items():
            check_name(name, self._limits)
            check_text(name, value, self._limits)
        return MappingProxyType(self._left)


def missing(name: str) -> CloudEventError:
    return CloudEventError("missing_attribute", f"the required attribute {name} is missing")


def check_name(name: str, limits: Limits) -> None:
    if _NAME.fullmatch(name) is None or name in ("data", "datacontenttype") or len(name) > limits.extension_name_chars:
        raise CloudEventError(
            "invalid_attribute",
            f"{quoted(name)} cannot be the name of an extension: it is 1 to {limits.extension_name_chars} "
            "of a-z and 0-9, and not 'data'",
        )


def check_text(name: str, value: str, limits: Limits) -> None:
    """Characters that every mode can carry, and not too many of them."""
    size = len(value)
    if not value.isascii():
        check_characters(name, value)
        size = len(value.encode())
    elif not value.isprintable():
        check_characters(name, value)
    if size > limits.attribute_bytes:
        raise CloudEventError("attribute_too_large", f"{quoted(name)} has more than {limits.attribute_bytes} bytes")


def check_characters(name: str, value: str) -> None:
    if _FORBIDDEN.search(value) is not None:
        raise CloudEventError(
            "invalid_attribute", f"{quoted(name)} holds a control character, a surrogate or a noncharacter"
        )


def canonical(name: str, value: object) -> str:
    """The text of a value that a typed format gave (section 3 of the core: the type system)."""
    if type(value) is str:
        return value
    if name in CORE:
        raise CloudEventError("invalid_attribute", f"{name} must be a string")
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is int and value in INTEGERS:
        return str(value)
    raise CloudEventError("invalid_attribute", f"{quoted(name)} must be a string, a boolean or an integer of 32 bits")


def _is_time(time: str) -> bool:
    match = _TIME.fullmatch(time)
    if match is None:
        return False
    year, month, day = match.groups()
    return day <= "28" or int(day) <= (28 + isleap(int(year)) if month == "02" else _DAYS[int(month) - 1])
