"""Values and calls <-> what is stored: JSON text for TEXT columns, raw bytes for BLOB columns.

An annotation makes the text readable (pydantic writes it, pydantic reads it); the tagged form (`tagged`) makes it
exact. A value is written as its annotation says only if it comes back equal in type and value, else in the tagged form.
Knows nothing of runs, storage or retries.

Laws: decode(encode(x)) == x in type and value, or encode(x) raises SerializationError; the first run gets
decode(encode(x)), too; text that was written without an annotation is read with one, and the reverse.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import from_json, to_json

from edda.engine.codec.annotations import classes_in
from edda.engine.codec.equality import makes_objects, same
from edda.engine.codec.tagged import TAG, TAG_IN_JSON, TOP, JsonValue, Tagger, dump_plain, is_plain, load_plain
from edda.engine.codec.types import TYPES, KnownTypes
from edda.exceptions import SerializationError

SCALARS = frozenset[type]({str, int, bool, type(None), float})

SAYS_ITSELF: tuple[type, ...] = (str, int, bool, dict, list)


@dataclass(slots=True)
class Stored:
    """A value at rest: `text` is JSON; `blob` is a value that was `bytes` itself. Exactly one is not None."""

    text: str | None
    blob: bytes | None

    def __post_init__(self) -> None:
        assert (self.text is None) is not (self.blob is None)

    @property
    def size(self) -> int:
        """In bytes."""
        return size_bytes(self.text) if self.text is not None else len(self.blob or b"")


def size_bytes(text: str) -> int:
    """As stored. Text that is ASCII, as most is, knows it without being encoded."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


class ValueCodec:
    """For values of one annotation; without one (or with Any) every value says its own type.

    `what` names the value in errors. A value that is not of its annotation is refused, or stored as what it is if
    `trusting` (the arguments of an activity: Python itself does not mind).
    """

    def __init__(self, annotation: object = Parameter.empty, *, what: str = "value", trusting: bool = False) -> None:
        self._annotation = annotation
        self._what = what
        self._trusting = trusting
        self._at = TOP._replace(step=what)
        self._direct = direct_types(annotation)

    def encode(self, value: object) -> Stored:
        if type(value) in self._direct and is_plain(value):
            return Stored(dump_plain(value, self._at), None)
        return self._roundtrip_slowly(value)[0]

    def roundtrip(self, value: object) -> tuple[Stored, object]:
        """(encode(value), decode(encode(value))): what is stored, and what the workflow gets."""
        kind = type(value)
        if kind in self._direct and is_plain(value):
            text = dump_plain(value, self._at)
            return Stored(text, None), value if kind in SCALARS else from_json(text)
        return self._roundtrip_slowly(value)

    def decode(self, stored: Stored) -> object:
        return self.decode_text(stored.text) if stored.text is not None else stored.blob

    def decode_text(self, text: str) -> object:
        if TAG_IN_JSON in text:
            return self._tagger.loads(text)
        if self._direct:
            value = load_plain(text)
            if type(value) in self._direct or self._adapter is None:
                return value
        adapter = self._adapter
        return load_plain(text) if adapter is None else self._validate(adapter, text)

    def decode_foreign(self, node: JsonValue) -> object:
        """JSON that somebody outside wrote: tags mean nothing in it, the annotation alone says what it becomes."""
        adapter = None if self.reads_directly(node) else self._adapter
        return node if adapter is None else self._validate(adapter, to_json(node).decode())

    def encode_text(self, value: object) -> str:
        """As `encode`, but bytes, too, become JSON: for a value inside another."""
        if type(value) in self._direct and is_plain(value):
            return dump_plain(value, self._at)
        return self._text_slowly(value)[0]

    def is_direct(self, value: object) -> bool:
        return type(value) in self._direct and is_plain(value)

    def reads_directly(self, node: JsonValue) -> bool:
        """Whether JSON that holds no tag is the value already."""
        return type(node) in self._direct

    # -- the slow road ----------------------------------------------------------------------------------------------

    def _roundtrip_slowly(self, value: object) -> tuple[Stored, object]:
        if type(value) is bytes:
            self._require_honest(value)
            return Stored(None, value), value
        text, back = self._text_slowly(value)
        return Stored(text, None), self._tagger.loads(text) if back is NOT_READ else back

    def _text_slowly(self, value: object) -> tuple[str, object]:
        written = None if self._adapter is None else self._written_by_annotation(self._adapter, value)
        if written is not None:
            return written
        self._require_honest(value)
        text = self._tagger.dumps(value, self._at)
        if self._adapter is not None and TAG_IN_JSON not in text:
            text = f'{{"{TAG}":"exact","v":{text}}}'  # else the annotation would read it
        return text, NOT_READ

    def _written_by_annotation(self, adapter: TypeAdapter[Any], value: object) -> tuple[str, object] | None:
        """Text and what it is read back as, or None if the annotation's form would lose something."""
        try:
            text = adapter.dump_json(value, round_trip=True, by_alias=False, warnings="error").decode()
            if TAG_IN_JSON in text:
                return None
            back: object = adapter.validate_json(text, by_alias=False, by_name=True)
        except Exception:  # pydantic's, or any from a serializer or validator of the user's
            return None
        return (text, back) if same(value, back) else None

    def _require_honest(self, value: object) -> None:
        """Raise if the value is not what its annotation promises to whoever calls the function."""
        if self._adapter is None or self._trusting:
            return
        try:
            seen: object = self._adapter.validate_python(value, strict=True)
        except Exception as error:
            why = summary(error)
        else:
            if not makes_objects(value, seen):
                return
            why = "a model would have to be made from other data"
        raise SerializationError(
            f"{self._what} is annotated {show(self._annotation)}, but is of type {show(type(value))} ({why}). "
            "Correct the annotation or the value."
        )

    def _validate(self, adapter: TypeAdapter[Any], text: str) -> object:
        try:
            value: object = adapter.validate_json(text, by_alias=False, by_name=True)
        except Exception as error:
            why = summary(error)
        else:
            return value
        raise SerializationError(f"The stored {self._what} does not fit its annotation {show(self._annotation)}: {why}")

    @cached_property
    def _adapter(self) -> TypeAdapter[Any] | None:
        """None: pydantic has nothing to say about this annotation, so every value says its own type."""
        if is_anything(self._annotation):
            return None
        try:
            return make_adapter(self._annotation)
        except PydanticUndefinedAnnotation as error:
            raise unresolved(self._what, show(self._annotation), error) from error
        except (PydanticSchemaGenerationError, PydanticUserError):
            return None

    @cached_property
    def _tagger(self) -> Tagger:
        """Finds, besides what its module holds, the local classes that the annotation names."""
        return Tagger(KnownTypes(classes_in(self._annotation), base=TYPES))


NOT_READ: object = object()


def make_adapter(annotation: Any) -> TypeAdapter[Any]:
    """bytes as base64 where the annotation leaves it to us (a model has a configuration of its own)."""
    try:
        config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
        return TypeAdapter[Any](annotation, config=config)
    except PydanticUndefinedAnnotation:
        raise
    except PydanticUserError:
        return TypeAdapter[Any](annotation)


def is_anything(annotation: object) -> bool:
    return annotation is Any or annotation is object or annotation is Parameter.empty


def direct_types(annotation: Any) -> frozenset[type]:
    """The exact types whose plain values are written and read the same with and without the annotation."""
    if is_anything(annotation):
        return SCALARS | {dict, list}
    origin = get_origin(annotation)
    if origin is Annotated:
        return direct_types(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        members = [direct_types(member) for member in get_args(annotation)]
        return frozenset[type]().union(*members) if all(members) else frozenset()
    if origin is dict and get_args(annotation)[0] is str and is_anything(get_args(annotation)[1]):
        return frozenset({dict})
    if origin is list and is_anything(get_args(annotation)[0]):
        return frozenset({list})
    if annotation is float or annotation is int:
        return frozenset({int, float if annotation is float else bool})  # what Python's type system lets pass for it
    if annotation is None or annotation is type(None):
        return frozenset({type(None)})
    return frozenset({annotation}) if any(annotation is kind for kind in SAYS_ITSELF) else frozenset()


def show(annotation: object) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) and not get_args(annotation) else repr(annotation)


def summary(error: Exception) -> str:
    """What does not fit, without the values: they may be secret, and this goes to logs."""
    if not isinstance(error, ValidationError):
        return type(error).__name__
    details = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(str(part) for part in d['loc'])}: {d['msg']}".removeprefix(": ") for d in details[:3]]
    return "; ".join(lines) + (f"; and {len(details) - 3} more" if len(details) > 3 else "")


def unresolved(what: str, annotation: str, error: Exception) -> SerializationError:
    return SerializationError(
        f"The annotation {annotation} of {what} cannot be resolved ({error}). Its names must exist when the function "
        "is first used: import them at the top of the module, not only under TYPE_CHECKING."
    )
