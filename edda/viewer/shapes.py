"""What can be typed in a form, made from a JSON schema. Pure.

A shape is what a person fills in: a line of text, a choice, a list of shapes. Law: every schema has a shape; what no
control can say (unions, dictionaries, tuples, what refers to itself too deep) is typed as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from edda.viewer.loose import as_list, as_object

DEPTH_MAX: Final = 5
"""Of fieldsets in fieldsets; what is deeper is typed as JSON."""
CHOICES_MAX: Final = 200
NONE: Final[Mapping[str, Any]] = {"type": "null"}
YES_OR_NO: Final[Mapping[str, Any]] = {"enum": [True, False]}


class Kind(Enum):
    """How a shape is filled in."""

    TEXT = "text"
    WORD = "word"
    """Text of a certain form: a moment, a UUID, a decimal. It is never empty."""
    NUMBER = "number"
    DATE = "date"
    YES = "yes"
    CHOICE = "choice"
    GROUP = "group"
    LIST = "list"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """`key` is its name in the data, `label` what people read."""

    kind: Kind
    key: str = ""
    label: str = ""
    help: str = ""
    hint: str = ""
    """An example, or what is meant: `2026-01-31T12:00:00Z`."""
    required: bool = True
    nullable: bool = False
    default: Any = None
    """Of what is not required; None also where the code makes it."""
    choices: tuple[Any, ...] = ()
    members: tuple[Shape, ...] = ()
    """Of a group; of a list the one shape of its items."""

    @property
    def is_extra(self) -> bool:
        """A group or a list that is not there until somebody asks for it."""
        if self.kind is Kind.LIST:
            return self.nullable or (not self.required and self.default is None)
        return self.kind is Kind.GROUP and (self.nullable or not self.required)


@dataclass(frozen=True, slots=True)
class _Schemas:
    """One parameter's schemas, and how deep in them we are."""

    definitions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    depth: int = 0

    def deeper(self) -> _Schemas:
        return _Schemas(self.definitions, self.depth + 1)

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Without `$ref`; what stands beside it beats what it refers to."""
        name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
        found = as_object(self.definitions.get(name))
        return {**found, **schema} if found is not None else schema


def shape_of(parameters: Mapping[str, Any]) -> Shape:
    """Of an object whose properties are parameters, each with `$defs` of its own."""
    required = as_list(parameters.get("required")) or []
    properties = as_object(parameters.get("properties")) or {}
    members = [
        _shape(key, schema, key in required, _Schemas(as_object(schema.get("$defs")) or {}))
        for key, value in properties.items()
        if (schema := as_object(value)) is not None
    ]
    return Shape(kind=Kind.GROUP, members=tuple(members))


def _shape(key: str, schema: Mapping[str, Any], required: bool, schemas: _Schemas) -> Shape:
    schema = schemas.resolved(schema)
    inner, nullable = _without_none(schema)
    inner = schemas.resolved(inner)
    kind, hint = _kind_of(inner, schemas)
    if kind is Kind.YES and nullable:
        kind, inner = Kind.CHOICE, YES_OR_NO
    return Shape(
        kind=kind,
        key=key,
        label=_label(key, schema),
        help=str(schema.get("description", "")) if kind is not Kind.GROUP else "",
        hint=hint,
        required=required,
        nullable=nullable,
        default=schema.get("default"),
        choices=_choices(inner) if kind is Kind.CHOICE else (),
        members=_members(kind, inner, schemas.deeper()),
    )


def _without_none(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """`X | None`: X, and that it may be None."""
    options = as_list(schema.get("anyOf"))
    if options is None or NONE not in options:
        return schema, False
    left = [option for option in options if option != NONE]
    return (as_object(left[0]) or {} if len(left) == 1 else {"anyOf": left}), True


_FORMATS: Final[Mapping[str, str]] = {
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00",
    "duration": "90 for seconds, or PT1M30S",
    "uuid": "00000000-0000-0000-0000-000000000000",
}


def _kind_of(schema: Mapping[str, Any], schemas: _Schemas) -> tuple[Kind, str]:
    """How it is typed, and a hint."""
    if _choices(schema):
        return Kind.CHOICE, ""
    if _is_decimal(schema):
        return Kind.WORD, "a number"
    match schema.get("type"), schema.get("format"):
        case "string", "date":
            return Kind.DATE, ""
        case "string", format_:
            hint = _FORMATS.get(str(format_), "")
            return (Kind.WORD if hint else Kind.TEXT), hint
        case "integer", _:
            return Kind.NUMBER, "a whole number"
        case "number", _:
            return Kind.NUMBER, "a number"
        case "boolean", _:
            return Kind.YES, ""
        case "object", _ if "properties" in schema and schemas.depth < DEPTH_MAX:
            return Kind.GROUP, ""
        case "array", _ if as_object(schema.get("items")) and schemas.depth < DEPTH_MAX:
            return Kind.LIST, ""
        case "object", _:
            return Kind.JSON, '{"name": "value"}'
        case "array", _:
            return Kind.JSON, "[1, 2]"
        case _:
            return Kind.JSON, 'any JSON; text in quotation marks: "like this"'


def _is_decimal(schema: Mapping[str, Any]) -> bool:
    """A decimal is a number or its text; as text no digit is lost."""
    options = [as_object(option) or {} for option in as_list(schema.get("anyOf")) or ()]
    return [option.get("type") for option in options] == ["number", "string"]


def _choices(schema: Mapping[str, Any]) -> tuple[Any, ...]:
    if "const" in schema:
        return (schema["const"],)
    found = as_list(schema.get("enum")) or []
    return tuple(found) if len(found) <= CHOICES_MAX else ()


def _members(kind: Kind, schema: Mapping[str, Any], schemas: _Schemas) -> tuple[Shape, ...]:
    if kind is Kind.LIST:
        return (_shape("", as_object(schema.get("items")) or {}, True, schemas),)
    if kind is not Kind.GROUP:
        return ()
    required = as_list(schema.get("required")) or []
    properties = as_object(schema.get("properties")) or {}
    return tuple(_shape(key, as_object(value) or {}, key in required, schemas) for key, value in properties.items())


def _label(key: str, schema: Mapping[str, Any]) -> str:
    """A title that somebody wrote, not one that was made of the name."""
    title = str(schema.get("title", ""))
    made = re.sub(r"[\s_]", "", title).lower() == re.sub(r"[\s_]", "", key).lower()
    return key if made or not title or "$ref" in schema or "properties" in schema else title
