"""The annotations of a function, resolved when they are first needed.

With `from __future__ import annotations` an annotation is text. Names are looked up one annotation at a time, so that
the context parameter, which nobody stores, may be imported under TYPE_CHECKING only; and also in the function around,
so that a model defined inside a test works. The variables of that function must be read while it runs: at decoration.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FrameType, SimpleNamespace
from typing import Any, cast, get_args

from pydantic import BaseModel

from edda.engine.codec.types import name_of

CALL = "__call__"


class Annotations:
    """Of one callable; make it where the callable is defined."""

    def __init__(self, func: Callable[..., object]) -> None:
        self._raw = _raw_annotations(func)
        self._globals: dict[str, Any] = getattr(func, "__globals__", {})
        self._locals = _names_around(func, self._raw)

    def resolve(self, name: str) -> object:
        """Parameter.empty without one; NameError, AttributeError, SyntaxError or TypeError if it cannot be resolved."""
        if name not in self._raw:
            return inspect.Parameter.empty
        annotation = self._raw[name]
        if isinstance(annotation, type) and not get_args(annotation):
            return annotation
        holder = SimpleNamespace(__annotations__={name: annotation})
        hints = typing.get_type_hints(
            cast(Any, holder), globalns=self._globals, localns=self._locals, include_extras=True
        )
        return hints[name]

    def text(self, name: str) -> str:
        annotation = self._raw[name]
        return repr(annotation)


def plain_function(func: Callable[..., object]) -> Callable[..., object]:
    """The function that carries the annotations: inside partials, wrappers, bound methods and callable objects."""
    while isinstance(func, functools.partial):
        func = cast("functools.partial[object]", func).func
    func = inspect.unwrap(func)
    if inspect.ismethod(func):
        return cast("Callable[..., object]", func.__func__)
    if inspect.isroutine(func) or isinstance(func, type):
        return func
    return cast("Callable[..., object]", getattr(type(func), CALL, func))


def _raw_annotations(func: Callable[..., object]) -> dict[str, object]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return dict(annotationlib.get_annotations(func, format=annotationlib.Format.FORWARDREF))
    return dict(getattr(func, "__annotations__", {})) if not isinstance(func, type) else {}


def _names_around(func: Callable[..., object], raw: Mapping[str, object]) -> dict[str, object]:
    """Only the names that the texts use: a frame's variables would be kept alive for ever."""
    code = getattr(func, "__code__", None)
    texts = [annotation for annotation in raw.values() if isinstance(annotation, str)]
    if code is None or not texts:
        return {}
    wanted: set[str] = set()
    for text in texts:
        wanted.update(_names_in(text))
    found: dict[str, object] = {}
    for frame in _frames_around(code):
        found = {name: frame.f_locals[name] for name in wanted if name in frame.f_locals} | found
    for name, cell in zip(code.co_freevars, getattr(func, "__closure__", None) or (), strict=False):
        if name in wanted and name not in found:
            found[name] = cell.cell_contents
    return found


def _names_in(text: str) -> Iterator[str]:
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return
    yield from (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _frames_around(code: CodeType) -> Iterator[FrameType]:
    """The running functions in whose text this function stands, the innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        if code in frame.f_code.co_consts:
            if frame.f_locals is frame.f_globals:
                return
            yield frame
            code = frame.f_code
        frame = frame.f_back


def classes_in(annotation: object) -> dict[str, type]:
    """The classes an annotation names, by stored name, with those that its models and dataclasses name in turn."""
    found: dict[str, type] = {}
    todo = [annotation]
    while todo:
        node = todo.pop()
        todo.extend(get_args(node))
        if not isinstance(node, type) or get_args(node) or node.__module__ == "builtins":
            continue
        if name_of(node) not in found:
            found[name_of(node)] = node
            todo.extend(_field_annotations(node))
    return found


def _field_annotations(cls: type) -> list[object]:
    fields: dict[str, dataclasses.Field[object]] = getattr(cls, "__dataclass_fields__", {})
    if issubclass(cls, BaseModel):
        return [field.annotation for field in cls.model_fields.values()]
    return [field.type for field in fields.values()]
