"""Errors <-> JSON text: an `except` clause in a workflow matches on replay what it matched in the first run.

An error is stored as its type's name, its `args`, its attributes and its causes; all of it for the program, and message
and stack trace for people. Knows nothing of retries or runs.

Laws: encode_error never raises. decode_error gives the same class with equal `args` if this process has the class (it
is never imported, see `types`), else a `RecordedError`. No constructor of the user's runs: the object is made by the
built-in exception it derives from, and filled. An error that would stop a process (SystemExit, KeyboardInterrupt) or an
engine is only ever a `RecordedError`, so that a forged row cannot raise it.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from pydantic import ValidationError
from pydantic_core import PydanticCustomError, to_json

from edda import exceptions
from edda.engine.codec.tagged import TAG, UNREADABLE, At, JsonValue, Tagger, load_plain, unstorable
from edda.engine.codec.types import TYPES, KnownTypes, name_of
from edda.exceptions import RecordedError, SerializationError

E = TypeVar("E", bound=type[BaseException])
Record = dict[str, JsonValue]

STACK_TRACE_CHARS_MAX = 16 * 1024
MESSAGE_CHARS_MAX = 64 * 1024
ERROR_CHARS_MAX = 256 * 1024
"""An error must fit where a result fits; a larger one keeps type, message, stack trace and loses the rest."""
NAMELESS = "Exception"
CAUSES_MAX = 8
"""Causes of causes, and errors inside errors (groups), together."""

STATE_OF_BUILTINS: Mapping[type[BaseException], tuple[str, ...]] = {
    ImportError: ("name", "path"),
    AttributeError: ("name",),
    NameError: ("name",),
}
"""What these hold besides `args` and `__dict__`."""


@runtime_checkable
class ChoosesAttributes(Protocol):
    """An exception may say which attributes are stored, e.g. to leave out secrets; else all that can be are."""

    def __edda_attributes__(self) -> Mapping[str, object]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """An error for people, without making the object: for the viewer, the CLI and `status()`."""

    error_type: str
    error_message: str
    stack_trace: str


def register_error(cls: E) -> E:
    """Let an error class be found that is not at the top of its module, in every process that does the same."""
    TYPES.register(cls)
    return cls


def encode_error(error: BaseException) -> str:
    stack_trace = _stack_trace(error)
    try:
        text = _dump(ErrorTagger(TYPES).record(error) | {"stack_trace": stack_trace})
    except Exception:  # whatever a class of the user's does when it is looked at, its failure must be recorded
        text = ""
    if text and len(text) <= ERROR_CHARS_MAX:
        return text
    return _dump(_heading(error) | {"stack_trace": stack_trace})


def decode_error(text: str) -> BaseException:
    """SerializationError if the text was not written by `encode_error`."""
    return ErrorTagger(TYPES).error(_record_in(text))


def summarise_error(text: str) -> ErrorSummary:
    record = _record_in(text)
    return ErrorSummary(
        error_type=_text(record, "error_type"),
        error_message=_text(record, "error_message"),
        stack_trace=_text(record, "stack_trace"),
    )


def message_of(error: BaseException) -> str:
    """Its message, storable and bounded, whatever its class does when it is asked."""
    try:
        message = _sound(str(error))
    except (Exception, asyncio.CancelledError):
        return f"<{class_name(error, whole=True)} whose str() failed>"
    if len(message) > MESSAGE_CHARS_MAX:
        return f"{message[:MESSAGE_CHARS_MAX]}… ({len(message)} characters)"
    return message


def in_words(error: BaseException) -> str:
    """Type and message, for people."""
    return f"{class_name(error)}: {message_of(error)}"


def class_name(error: BaseException, *, whole: bool = False) -> str:
    """The name of its class, for people, whatever a metaclass makes of that; `whole`: and of what it is defined in."""
    try:
        name: Any = type(error).__qualname__ if whole else type(error).__name__  # a metaclass may say anything
        return _sound(name) if isinstance(name, str) else NAMELESS
    except Exception:
        return NAMELESS


class ErrorTagger(Tagger):
    """Tagged values among which errors may stand: in `args` (groups), in attributes (`exc.orig`), as causes."""

    def __init__(self, types: KnownTypes) -> None:
        super().__init__(types)
        self._under_way: list[BaseException] = []
        self._readers["error"] = lambda node: self.error(node["v"])

    # -- errors to records ------------------------------------------------------------------------------------------

    def record(self, error: BaseException) -> Record:
        self._under_way.append(error)
        try:
            record = _heading(error)
            record["args"] = self._tag_args(error, _text(record, "error_message"))
            record |= {name: part for name, part in self._parts(error) if part}
            return record
        finally:
            self._under_way.pop()

    def _parts(self, error: BaseException) -> Iterator[tuple[str, JsonValue]]:
        yield "attributes", self._tag_storable(_attributes(error))
        yield "state", self._tag_storable({name: getattr(error, name, None) for name in _state_names(type(error))})
        if error.__cause__ is not None and self._may_enter(error.__cause__):
            yield "cause", self.record(error.__cause__)

    def _tag_args(self, error: BaseException, message: str) -> JsonValue:
        """All of them, or else the message: an equal text is worth more than half of the arguments."""
        try:
            return [self._tag_text(item) for item in _constructor_args(error)]
        except SerializationError:
            return [message]

    def _tag_storable(self, values: Mapping[str, object]) -> Record:
        stored: Record = {}
        for name, value in values.items():
            try:
                stored[name] = self._tag_text(value)
            except Exception:  # noqa: S112 - an attribute that cannot be stored or even read is left out
                continue
        return stored

    def _tag_text(self, value: object) -> JsonValue:
        node = self.tag(value)
        _require_text(node)
        return node

    def _tag_object(self, value: object, at: At) -> JsonValue:
        if not isinstance(value, BaseException):
            return super()._tag_object(value, at)
        if not self._may_enter(value):
            raise unstorable(at, "is an error that contains itself, or too many others")
        return {TAG: "error", "v": self.record(value)}

    def _may_enter(self, error: BaseException) -> bool:
        return len(self._under_way) < CAUSES_MAX and all(error is not outer for outer in self._under_way)

    # -- records to errors ------------------------------------------------------------------------------------------

    def error(self, record: Record) -> BaseException:
        error = self._same_class(record) or RecordedError(
            _text(record, "error_type"), _text(record, "error_message"), _text(record, "stack_trace")
        )
        cause = record.get("cause")
        if isinstance(cause, dict):
            error.__cause__ = self.error(cause)
        return error

    def _same_class(self, record: Record) -> BaseException | None:
        cls = TYPES.find(_text(record, "type"))
        args = record.get("args")
        if cls is None or not _may_be_raised(cls) or not isinstance(args, list):
            return None
        try:
            values = [self.untag(node) for node in args]
            error = _restored_validation_error(values) if cls is ValidationError else _blank_error(cls, values)
            _restore_state(error, self._untag_all(record.get("attributes")), self._untag_all(record.get("state")))
        except (*UNREADABLE, SerializationError, AssertionError):
            return None
        return error

    def _untag_all(self, nodes: JsonValue) -> dict[str, object]:
        return {name: self.untag(node) for name, node in nodes.items()} if isinstance(nodes, dict) else {}


# -- looking at an error ---------------------------------------------------------------------------------------------


def _heading(error: BaseException) -> Record:
    cls = type(error)
    shown = getattr(error, "error_type", None) if issubclass(cls, RecordedError) else None
    message = message_of(error)
    return {
        "error_type": _sound(shown) if isinstance(shown, str) else class_name(error, whole=True),
        "error_message": message,
        "type": _place_of(cls),
        "args": [message],
    }


def _place_of(cls: type) -> str:
    """Under what it is found again; nothing is found under an empty one."""
    try:
        return _sound(name_of(cls))
    except Exception:
        return ""


def _constructor_args(error: BaseException) -> tuple[object, ...]:
    if isinstance(error, ValidationError):
        details = [{**detail, "input": _or_repr(detail.get("input"))} for detail in error.errors(include_url=False)]
        reduced = cast("tuple[Any, tuple[Any, ...]]", error.__reduce__())
        return error.title, details, reduced[1][2]
    if isinstance(error, OSError):  # its `args` lack the file names
        return cast("tuple[Any, tuple[object, ...]]", OSError.__reduce__(error))[1]
    return error.args


def _or_repr(value: object) -> object:
    try:
        Tagger(TYPES).dumps(value)
    except SerializationError:
        return repr(value)
    return value


def _attributes(error: BaseException) -> Mapping[str, object]:
    if isinstance(error, ChoosesAttributes):
        return error.__edda_attributes__()
    return cast("Mapping[str, object]", getattr(error, "__dict__", {}))


def _state_names(cls: type) -> tuple[str, ...]:
    return next((names for base, names in STATE_OF_BUILTINS.items() if issubclass(cls, base)), ())


def _stack_trace(error: BaseException) -> str:
    try:
        text = _sound("".join(traceback.format_exception(error)))
    except Exception:
        return ""
    if len(text) <= STACK_TRACE_CHARS_MAX:
        return text
    head = STACK_TRACE_CHARS_MAX // 4
    return f"{text[:head]}\n… ({len(text)} characters) …\n{text[head - STACK_TRACE_CHARS_MAX :]}"


def _sound(text: str) -> str:
    """Without lone surrogates, which no database can store."""
    return text.encode("utf-8", "backslashreplace").decode()


def _require_text(node: JsonValue) -> None:
    try:
        to_json(node)
    except ValueError as error:
        raise SerializationError(str(error)) from None


# -- making an error -------------------------------------------------------------------------------------------------


def _may_be_raised(cls: type) -> bool:
    """KeyboardInterrupt, SystemExit and the engine's own control flow are not failures, so no row may raise them."""
    if not issubclass(cls, BaseException):
        return False
    return (
        issubclass(cls, Exception)
        or cls is asyncio.CancelledError
        or cls.__module__ == exceptions.__name__
        or TYPES.is_registered(cls)
    )


def _blank_error(cls: type, args: list[object]) -> BaseException:
    """As the nearest built-in exception would make it; `cls(*args)` would run a constructor that may want others."""
    base = cast(Any, next(base for base in cls.__mro__ if base.__module__ == "builtins"))
    error: BaseException = base.__new__(cls, *args)
    base.__init__(error, *args)
    assert type(error) is cls
    return error


def _restore_state(error: BaseException, attributes: dict[str, object], state: dict[str, object]) -> None:
    if attributes:
        namespace: dict[str, object] = object.__getattribute__(error, "__dict__")
        namespace.update(attributes)
    for name in _state_names(type(error)):
        if state.get(name) is not None:
            setattr(error, name, state[name])


def _restored_validation_error(args: list[object]) -> BaseException:
    title, details, input_type = cast("tuple[str, list[dict[str, Any]], Any]", tuple(args))
    lines: list[Any] = [_line_error(detail) for detail in details]
    return ValidationError.from_exception_data(title, lines, input_type)


def _line_error(detail: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {key: detail[key] for key in ("type", "loc", "input", "ctx") if key in detail}
    try:
        ValidationError.from_exception_data("", [cast(Any, line)])
    except (KeyError, TypeError, ValueError):  # a kind of the user's own
        message = str(detail["msg"]).replace("{", "{{").replace("}", "}}")
        line["type"] = PydanticCustomError(detail["type"], cast(Any, message), detail.get("ctx"))
        line.pop("ctx", None)
    return line


# -- text ------------------------------------------------------------------------------------------------------------


def _dump(record: Record) -> str:
    return to_json(record).decode()


def _record_in(text: str) -> Record:
    record = load_plain(text)
    if not isinstance(record, dict) or not isinstance(record.get("error_type"), str):
        raise SerializationError("The stored text is not an error")
    return record


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""
