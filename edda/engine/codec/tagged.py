"""Plain Python values <-> JSON, exactly, without an annotation.

What JSON can say itself (str, int, float, bool, None, list, dict with str keys) is written as it is. Everything else is
an object that carries the key `$edda`: `{"$edda": "decimal", "v": "1.10"}`; a user's dict with that very key is
written as a list of pairs. Knows no annotations, no pydantic schema, no storage.

Laws: untag(tag(x)) == x in type and value, or tag(x) raises; equal sets and calls give equal text in every process;
reading a row runs no constructor, validator, property or import: objects are filled field by field.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from base64 import b64decode, b64encode
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path
from types import MemberDescriptorType
from typing import Any, NamedTuple, TypeAlias, TypeGuard, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, PydanticUndefined, from_json, to_json

from edda.engine.codec.types import KnownTypes, name_of
from edda.exceptions import SerializationError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

TAG = "$edda"
TAG_IN_JSON = f'"{TAG}"'
"""Stands in a JSON text if any value in it is tagged. A quotation mark inside a string is escaped, so user text
matches only if it is a whole string, and then reading it as tagged changes nothing."""

DEPTH_MAX = 64
"""Nesting of a value. A level costs at most three levels of JSON, and pydantic-core reads 200."""

INT_SMALL_MAX = 1 << 62
INT_PLAIN_MAX = 10**4000
"""Python and pydantic-core refuse to read integers of more than 4300 digits; larger ones are written in hexadecimal."""

ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
"""No dots: where the system has no zone files, zoneinfo imports the sub-package of `tzdata` that a name spells."""


class At(NamedTuple):
    """Where in a value we are, for error messages; `depth` counts down."""

    parent: At | None
    step: str
    depth: int

    def inside(self, step: str) -> At:
        if self.depth == 0:
            raise unstorable(self, f"is nested more than {DEPTH_MAX} levels deep, or contains itself")
        return At(self, step, self.depth - 1)

    def __str__(self) -> str:
        steps: list[str] = []
        at: At | None = self
        while at is not None:
            steps.append(at.step)
            at = at.parent
        steps.reverse()
        return "".join(steps) if len(steps) < 12 else "".join([*steps[:6], "…", *steps[-3:]])


TOP = At(None, "value", DEPTH_MAX)


def unstorable(at: At, why: str) -> SerializationError:
    return SerializationError(f"{at} {why}")


def is_plain(value: object, depth: int = DEPTH_MAX) -> bool:
    """Whether JSON itself says this value exactly. The hot path: exact types only, no allocation."""
    plain: Any = value  # its exact type is known where it is used; `cast` would be a call
    kind = type(value)
    if kind is str or plain is None or kind is bool:
        return True
    if kind is int:
        return bool(-INT_SMALL_MAX < plain < INT_SMALL_MAX or -INT_PLAIN_MAX < plain < INT_PLAIN_MAX)
    if kind is float:
        return math.isfinite(plain)
    if depth == 0:
        return False
    if kind is dict:
        for key, item in plain.items():
            if type(key) is not str or key == TAG or not (type(item) is str or is_plain(item, depth - 1)):
                return False
        return True
    if kind is list:
        for item in plain:  # noqa: SIM110 - a generator would cost more than it saves
            if type(item) is not str and not is_plain(item, depth - 1):
                return False
        return True
    return False


def dump_plain(value: object, at: At = TOP) -> str:
    """JSON text of a plain value. It holds no raw NUL (PostgreSQL refuses one in TEXT): JSON escapes it."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError as error:
        where = _surrogate_in(value, at)
        if where is None:
            raise unstorable(at, f"cannot be written as JSON: {error}") from None
        raise unstorable(
            where,
            "is text with a lone surrogate (half a character), which no database can store. "
            "Decode the original bytes with errors='replace', or keep them as bytes.",
        ) from None


def load_plain(text: str) -> JsonValue:
    try:
        tree: JsonValue = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise SerializationError(f"The stored text is not JSON: {error}") from None
    return tree


def _surrogate_in(value: object, at: At) -> At | None:
    if isinstance(value, str):
        return at if any("\ud800" <= letter <= "\udfff" for letter in value) else None
    found: Iterable[At | None] = ()
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        found = (
            _surrogate_in(part, at.inside(f"[{key!r}]" if part is item else " key"))
            for key, item in items
            for part in (key, item)
        )
    elif isinstance(value, list | tuple):
        parts = cast("Iterable[object]", value)
        found = (_surrogate_in(item, at.inside(f"[{index}]")) for index, item in enumerate(parts))
    return next((where for where in found if where is not None), None)


# -- leaves: one value, one tag, no contents -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    tag: str
    write: Callable[[Any], JsonValue]
    read: Callable[[Any], object]


def _write_decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError(f"is {value}: not a finite number")
    return str(value)


def _zone(zone: tzinfo | None) -> str | None:
    return zone.key if type(zone) is ZoneInfo else None


def _write_moment(value: datetime | time) -> JsonValue:
    """ISO text with its offset; a named zone or a fold needs more. Any other tzinfo is kept as its offset then."""
    zone = _zone(value.tzinfo)
    if zone is None and not value.fold:
        return value.isoformat()
    return [(value.replace(tzinfo=None) if zone else value).isoformat(), value.fold, zone]


def _read_moment(kind: type[datetime] | type[time], stored: str | list[Any]) -> datetime | time:
    if isinstance(stored, str):
        return kind.fromisoformat(stored)
    text, fold, zone = stored
    moment = kind.fromisoformat(text).replace(fold=fold)
    if zone is None:
        return moment
    if not ZONE_NAME.fullmatch(zone):
        raise ValueError("not the name of a time zone")
    return moment.replace(tzinfo=ZoneInfo(zone))


def _read_duration(stored: list[int]) -> timedelta:
    days, seconds, microseconds = stored
    return timedelta(days, seconds, microseconds)


def _read_offset(stored: str) -> tzinfo | None:
    return datetime.fromisoformat(stored).tzinfo


LEAVES: Mapping[type, Leaf] = {
    Decimal: Leaf("decimal", _write_decimal, Decimal),
    UUID: Leaf("uuid", str, UUID),
    bytes: Leaf("bytes", lambda v: b64encode(v).decode(), lambda s: b64decode(s, validate=True)),
    bytearray: Leaf("bytearray", lambda v: b64encode(v).decode(), lambda s: bytearray(b64decode(s, validate=True))),
    datetime: Leaf("datetime", _write_moment, lambda s: _read_moment(datetime, s)),
    date: Leaf("date", date.isoformat, date.fromisoformat),
    time: Leaf("time", _write_moment, lambda s: _read_moment(time, s)),
    timedelta: Leaf("timedelta", lambda v: [v.days, v.seconds, v.microseconds], _read_duration),
    timezone: Leaf("timezone", lambda v: datetime(2000, 1, 1, tzinfo=v).isoformat(), _read_offset),
    type(Path()): Leaf("path", str, Path),
}
LEAF_BY_TAG: Mapping[str, Leaf] = {leaf.tag: leaf for leaf in LEAVES.values()}


FACTORIES: Mapping[str, type] = {kind.__name__: kind for kind in (list, dict, set, tuple, str, int, float, bool)}
"""What a `defaultdict` or a field added since may be filled with: reading a row calls nothing of the user's."""

UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a damaged or forged row may come upon."""


class Tagger:
    """One direction each: `tag` and `untag`. With `for_hash` the text is only compared, never read back."""

    def __init__(self, types: KnownTypes, *, for_hash: bool = False) -> None:
        self._types = types
        self._for_hash = for_hash
        self._writers: dict[type, Callable[[Any, At], JsonValue]] = {
            list: self._tag_items,
            dict: self._tag_dict,
            tuple: lambda v, at: {TAG: "tuple", "v": self._tag_items(v, at)},
            set: lambda v, at: {TAG: "set", "v": self._tag_unordered(v, at)},
            frozenset: lambda v, at: {TAG: "frozenset", "v": self._tag_unordered(v, at)},
            OrderedDict: lambda v, at: {TAG: "ordereddict", "v": self._tag_pairs(v, at)},
            Counter: lambda v, at: {TAG: "counter", "v": self._tag_pairs(v, at)},
            deque: lambda v, at: {TAG: "deque", "max": v.maxlen, "v": self._tag_items(v, at)},
            defaultdict: self._tag_defaultdict,
        }
        self._readers: dict[str, Callable[[dict[str, Any]], object]] = {
            "exact": lambda node: self.untag(node["v"]),
            "int": lambda node: int(node["v"], 16),
            "tuple": lambda node: tuple(self._untag_items(node["v"])),
            "set": lambda node: set(self._untag_items(node["v"])),
            "frozenset": lambda node: frozenset(self._untag_items(node["v"])),
            "dict": lambda node: dict(self._untag_pairs(node["v"])),
            "ordereddict": lambda node: OrderedDict(self._untag_pairs(node["v"])),
            "counter": lambda node: _counter(self._untag_pairs(node["v"])),
            "deque": lambda node: deque(self._untag_items(node["v"]), node["max"]),
            "defaultdict": self._untag_defaultdict,
            "enum": self._untag_enum,
            "namedtuple": self._untag_namedtuple,
            "dataclass": self._untag_dataclass,
            "model": self._untag_model,
        }

    def dumps(self, value: object, at: At = TOP) -> str:
        return dump_plain(value if is_plain(value) else self.tag(value, at), at)

    def loads(self, text: str) -> object:
        tree = load_plain(text)
        return self.read(tree) if TAG_IN_JSON in text else tree

    def read(self, tree: JsonValue) -> object:
        """`untag`, with every way a damaged row can fail made a `SerializationError`."""
        try:
            return self.untag(tree)
        except UNREADABLE as error:
            raise SerializationError(f"The stored value cannot be read back: {error}") from error

    # -- values to JSON ---------------------------------------------------------------------------------------------

    def tag(self, value: object, at: At = TOP) -> JsonValue:
        kind = type(value)
        if value is None or kind is str or kind is bool:
            return cast("str | bool | None", value)
        if kind is int:
            return _tag_int(cast(int, value))
        if kind is float:
            return self._tag_float(cast(float, value), at)
        writer = self._writers.get(kind)
        if writer is not None:
            return writer(value, at)
        leaf = LEAVES.get(kind)
        if leaf is None:
            return self._tag_object(value, at)
        try:
            return {TAG: leaf.tag, "v": leaf.write(value)}
        except ValueError as error:
            raise unstorable(at, str(error)) from None

    def _tag_float(self, value: float, at: At) -> JsonValue:
        if not math.isfinite(value):
            raise unstorable(at, f"is the float {value}, which JSON cannot say. Return None or a string instead.")
        return int(value) if self._for_hash and value.is_integer() else value  # 9.0 == 9 is the same call

    def _tag_items(self, values: Iterable[object], at: At) -> list[JsonValue]:
        return [self.tag(item, at.inside(f"[{index}]")) for index, item in enumerate(values)]

    def _tag_unordered(self, values: Iterable[object], at: At) -> list[JsonValue]:
        return sorted((self.tag(item, at.inside("{…}")) for item in values), key=canonical)

    def _tag_dict(self, values: dict[object, object], at: At) -> JsonValue:
        if all(type(key) is str and key != TAG for key in values):
            return {cast(str, key): self.tag(item, at.inside(f"[{key!r}]")) for key, item in values.items()}
        return {TAG: "dict", "v": self._tag_pairs(values, at)}

    def _tag_pairs(self, values: Mapping[object, object], at: At) -> list[JsonValue]:
        pairs: list[JsonValue] = [
            [self.tag(key, at.inside(" key")), self.tag(item, at.inside(f"[{key!r}]"))] for key, item in values.items()
        ]
        return sorted(pairs, key=canonical) if self._for_hash else pairs

    def _tag_defaultdict(self, values: defaultdict[object, object], at: At) -> JsonValue:
        factory = values.default_factory
        name = None if factory is None else next((n for n, kind in FACTORIES.items() if kind is factory), "")
        if name == "":
            raise unstorable(at, f"is a defaultdict that calls {factory!r}. Return dict(it).")
        return {TAG: "defaultdict", "default": name, "v": self._tag_pairs(values, at)}

    def _tag_object(self, value: object, at: At) -> JsonValue:
        if isinstance(value, Enum):
            return self._tag_enum(value, at)
        if isinstance(value, BaseModel):
            return self._tag_model(value, at)
        if is_dataclass_instance(value):
            return self._tag_dataclass(value, at)
        if is_namedtuple(value):
            return {TAG: "namedtuple", "t": self._name(value, at), "v": self._tag_items(value, at)}
        if isinstance(value, tzinfo) and _zone(value) is None and value.utcoffset(None) is not None:
            return self.tag(timezone(cast(timedelta, value.utcoffset(None))), at)
        base = next((kind for kind in (str, int, float) if isinstance(value, kind)), None)
        if base is not None:  # e.g. the handle of an instance, or numpy.float64: it comes back as the plain type
            return self.tag(_as_base(base, value), at)
        raise unstorable(
            at,
            f"is of type {type(value).__module__}.{type(value).__qualname__}, which cannot be stored. "
            "Use a plain value, a dataclass or a pydantic model.",
        )

    def _tag_enum(self, value: Enum, at: At) -> JsonValue:
        name = cast("str | None", getattr(value, "_name_", None))
        known = name is not None and name in type(value).__members__
        return {
            TAG: "enum",
            "t": self._name(value, at),
            "v": name if known else self.tag(value.value, at.inside(".value")),
        }

    def _tag_dataclass(self, value: object, at: At) -> JsonValue:
        name = self._name(value, at)
        _require_fillable(type(value), at)
        names = [field.name for field in dataclasses.fields(cast(Any, value))]
        parts = {n: self.tag(getattr(value, n), at.inside(f".{n}")) for n in names if hasattr(value, n)}
        return {TAG: "dataclass", "t": name, "v": parts}

    def _tag_model(self, value: BaseModel, at: At) -> JsonValue:
        cls = type(value)
        name = self._name(value, at)
        parts: dict[str, JsonValue] = {}
        for n in stored_fields(cls):
            if n in value.__dict__:
                parts[n] = self.tag(value.__dict__[n], at.inside(f".{n}"))
        node: dict[str, JsonValue] = {TAG: "model", "t": name, "v": parts}
        unset = [n for n in parts if n not in value.model_fields_set]
        if unset and not self._for_hash:
            node["unset"] = cast("list[JsonValue]", unset)
        if value.__pydantic_extra__:
            node["extra"] = self._tag_pairs(cast("dict[object, object]", value.__pydantic_extra__), at)
        return node

    def _name(self, value: object, at: At) -> str:
        cls = type(value)
        if not self._for_hash and not self._types.knows(cls):
            raise unstorable(
                at,
                f"is of type {cls.__module__}.{cls.__qualname__}, which another process could not find by that name. "
                "Annotate the function with the type, or define the class at the top level of its module.",
            )
        return name_of(cls)

    # -- JSON to values ---------------------------------------------------------------------------------------------

    def untag(self, node: JsonValue) -> object:
        if isinstance(node, list):
            return self._untag_items(node)
        if not isinstance(node, dict):
            return node
        if TAG not in node:
            return {key: self.untag(item) for key, item in node.items()}
        tag = node[TAG]
        if not isinstance(tag, str):
            raise ValueError(f"unknown tag {tag!r}")
        leaf = LEAF_BY_TAG.get(tag)
        if leaf is not None:
            return leaf.read(node["v"])
        reader = self._readers.get(tag)
        if reader is None:
            raise ValueError(f"unknown tag {tag!r}")
        return reader(node)

    def _untag_items(self, nodes: list[JsonValue]) -> list[object]:
        return [self.untag(node) for node in nodes]

    def _untag_pairs(self, pairs: list[list[JsonValue]]) -> list[tuple[object, object]]:
        return [(self.untag(key), self.untag(item)) for key, item in pairs]

    def _untag_defaultdict(self, node: dict[str, Any]) -> defaultdict[object, object]:
        default: str | None = node["default"]
        return defaultdict(None if default is None else FACTORIES[default], self._untag_pairs(node["v"]))

    def _type(self, node: dict[str, Any], kind: type) -> type:
        found = self._types.find(node["t"])
        if found is None or not issubclass(found, kind):
            raise SerializationError(
                f"The stored value is of type {node['t']!r}, which is not known here. Import its module before the "
                "workflow runs, or bring the class back."
            )
        return found

    def _untag_enum(self, node: dict[str, Any]) -> object:
        cls = cast("type[Enum]", self._type(node, Enum))
        stored: object = node["v"]
        if isinstance(stored, str) and stored in cls.__members__:
            return cls.__members__[stored]
        if issubclass(cls, Flag) and isinstance(stored, int) and "_missing_" not in cls.__dict__:
            return cls(stored)  # a combination of members
        raise ValueError(f"{cls.__qualname__} has no member {stored!r}")

    def _untag_namedtuple(self, node: dict[str, Any]) -> object:
        cls = cast(Any, self._type(node, tuple))
        items = self._untag_items(node["v"])
        defaults: dict[str, object] = cls._field_defaults
        items += [defaults[name] for name in cls._fields[len(items) :]]
        if len(items) != len(cls._fields):
            raise ValueError(f"{cls.__qualname__} has {len(cls._fields)} fields, the row {len(items)}")
        return cast(Any, tuple).__new__(cls, items)

    def _untag_dataclass(self, node: dict[str, Any]) -> object:
        cls = self._type(node, object)
        if not dataclasses.is_dataclass(cls):
            raise ValueError(f"{node['t']} is not a dataclass")
        stored: dict[str, JsonValue] = node["v"]
        instance = _blank(cls)
        for field in dataclasses.fields(cls):
            if field.name in stored:
                _fill(instance, field.name, self.untag(stored[field.name]))
            elif field.init:
                _fill(instance, field.name, _default(cls, field.name, field.default, field.default_factory))
        return instance

    def _untag_model(self, node: dict[str, Any]) -> BaseModel:
        cls = cast("type[BaseModel]", self._type(node, BaseModel))
        stored: dict[str, JsonValue] = node["v"]
        values: dict[str, object] = {}
        for name, field in cls.model_fields.items():
            if name in stored:
                values[name] = self.untag(stored[name])
            else:
                values[name] = _default(cls, name, field.default, field.default_factory)
        extra = dict(self._untag_pairs(node["extra"])) if "extra" in node else None
        if extra is None and cls.model_config.get("extra") == "allow":
            extra = {}
        fields_set = set(stored).intersection(values).difference(node.get("unset", ()))
        return _model(cls, values, cast("dict[str, object] | None", extra), fields_set)


def canonical(node: JsonValue) -> str:
    """Canonical JSON: equal values give equal text in every process and version."""
    return CANONICAL.encode(node)


CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def stored_fields(cls: type[BaseModel]) -> list[str]:
    """A field with `exclude=True` is not stored: its author said so. It comes back as its default."""
    return [name for name, field in cls.model_fields.items() if field.exclude is not True]


def is_namedtuple(value: object) -> TypeGuard[tuple[object, ...]]:
    return isinstance(value, tuple) and isinstance(getattr(cast(object, value), "_fields", None), tuple)


def is_dataclass_instance(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _tag_int(value: int) -> JsonValue:
    return value if -INT_PLAIN_MAX < value < INT_PLAIN_MAX else {TAG: "int", "v": hex(value)}


def _as_base(base: type, value: Any) -> object:
    if base is str:
        return str.__str__(value)
    return cast(object, int.__index__(value) if base is int else float.__float__(value))


def _counter(pairs: list[tuple[object, object]]) -> Counter[object]:
    counter: Counter[object] = Counter()
    cast(Any, dict).update(counter, pairs)  # Counter's own update would add to what is there
    return counter


# -- objects without their constructors ------------------------------------------------------------------------------


def _blank(cls: type) -> object:
    return cast(object, object.__new__(cls))


def _require_fillable(cls: type, at: At) -> None:
    try:
        _blank(cls)
    except TypeError:
        raise unstorable(
            at, f"is a dataclass that is also a built-in type ({cls.__qualname__}): it cannot be stored."
        ) from None


def _fill(instance: object, name: str, value: object) -> None:
    """Set one declared field. Not setattr: a property or a `__setattr__` of the class would run."""
    for cls in type(instance).__mro__:
        slot = cls.__dict__.get(name)
        if isinstance(slot, MemberDescriptorType):
            slot.__set__(instance, value)
            return
    fields: dict[str, object] = object.__getattribute__(instance, "__dict__")
    fields[name] = value


def _default(cls: type, name: str, default: object, factory: object) -> object:
    """The value of a field that the class has got since the row was written."""
    if default is not PydanticUndefined and default is not dataclasses.MISSING:
        return deepcopy(default) if type(default) in (list, dict, set) else default
    if isinstance(factory, type) and factory in FACTORIES.values():
        return factory()
    raise ValueError(f"the row has no value for field {name!r} of {cls.__qualname__}; give it a plain default")


def _model(
    cls: type[BaseModel], values: dict[str, object], extra: dict[str, object] | None, fields_set: set[str]
) -> BaseModel:
    model = cast(BaseModel, _blank(cls))
    private: dict[str, object] | None = None
    if cls.__private_attributes__:
        private = {
            name: _default(cls, name, attribute.default, attribute.default_factory)
            for name, attribute in cls.__private_attributes__.items()
            if attribute.default is not PydanticUndefined or attribute.default_factory in FACTORIES.values()
        }
    for name, value in (
        ("__dict__", values),
        ("__pydantic_fields_set__", fields_set),
        ("__pydantic_extra__", extra),
        ("__pydantic_private__", private),
    ):
        object.__setattr__(model, name, value)
    return model
