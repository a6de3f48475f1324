"""What can be said against a function when it is declared as a workflow, activity or compensation.

Nothing of the user's is run: an annotation that is text is looked up by its one name, never evaluated, because it may
name what only type checkers import. What cannot be decided passes.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, Final, get_origin

from edda.core.search import FIELDS_MAX, PATH_CHARS_MAX, SearchField

PLAIN_TYPES: Final = frozenset(
    {str, int, float, bool, complex, bytes, bytearray, dict, list, tuple, set, frozenset, NoneType}
)


def check_function(sort: str, function: Callable[..., Any]) -> None:
    """Refuse (TypeError) what could never be called with the context first."""
    name = getattr(function, "__name__", str(function))
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{sort} {name}() yields, so calling it gives a generator and no result that could be recorded. "
            "Collect the values and return them, in a list for example."
        )
    first = next(iter(parameters_of(function)), None)
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise TypeError(
            f"{sort} {name}() takes no context: its first parameter has to be one, {name}(ctx: WorkflowContext, ...)"
        )
    if first.name in ("self", "cls"):
        place = getattr(function, "__qualname__", name).rpartition("<locals>.")[2]
        raise TypeError(
            f"{sort} {place}() is a method: its first parameter is '{first.name}', and it has to be the context. "
            f"Declare a function outside of the class, {name}(ctx: WorkflowContext, ...), and let it call the method."
        )
    kind = known_type(first.annotation, function)
    if first.kind is not first.VAR_POSITIONAL and kind is not None and _is_never_a_context(kind):
        raise TypeError(
            f"{sort} {name}() has to take the context first, but its first parameter '{first.name}' is annotated with "
            f"{'None' if kind is NoneType else kind.__name__}. Write {name}(ctx: WorkflowContext, {first.name}, ...)."
        )


def search_fields_of(function: Callable[..., Any], paths: Sequence[str]) -> tuple[SearchField, ...]:
    """Declared search fields, each with the place of its parameter. TypeError or ValueError: there can be no such."""
    name = getattr(function, "__name__", str(function))
    if isinstance(paths, str):
        raise TypeError(f'search_fields of workflow {name}() is a list of names, search_fields=["{paths}"]')
    if len(paths) > FIELDS_MAX:
        raise ValueError(f"workflow {name}() has {len(paths)} search fields; it may have {FIELDS_MAX}")
    _, *parameters = parameters_of(function)
    return tuple(_search_field(name, path, parameters) for path in dict.fromkeys(paths))


def _search_field(function: str, path: str, parameters: Sequence[inspect.Parameter]) -> SearchField:
    if not 0 < len(path) <= PATH_CHARS_MAX:
        raise ValueError(f"search field {path!r} of workflow {function}() has to have 1 to {PATH_CHARS_MAX} characters")
    first = path.partition(".")[0]
    for position, one in enumerate(parameters):
        if one.name == first and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            return SearchField(path, None if one.kind is one.KEYWORD_ONLY else position)
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return SearchField(path, None)
    raise ValueError(
        f"search field {path!r} of workflow {function}() begins with {first!r}, which is none of its parameters: "
        f"{', '.join(one.name for one in parameters) or 'it has none'}"
    )


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(signature_of(function).parameters.values())


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """As `inspect.signature`, but names that only type checkers know do no harm."""
    if sys.version_info >= (3, 14):  # annotations are evaluated when they are asked for
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def known_type(annotation: object, function: Callable[..., Any]) -> type | None:
    """The class that an annotation of this function means, without its parameters; None if that cannot be told."""
    if annotation is None:
        return NoneType
    if annotation is inspect.Parameter.empty:
        return None
    if isinstance(annotation, str):
        return _type_of_text(annotation, getattr(inspect.unwrap(function), "__globals__", {}))
    origin = get_origin(annotation)
    meant = annotation if origin is None else origin
    return meant if isinstance(meant, type) else None


def model_fields_of(kind: type) -> frozenset[str] | None:
    """The names of the fields of a model of pydantic's, which is not imported here; None if it is something else."""
    fields: Mapping[str, object] | None = getattr(kind, "model_fields", None)
    return None if fields is None else frozenset(fields)


def _type_of_text(text: str, namespace: Mapping[str, object]) -> type | None:
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    if isinstance(node, ast.Constant) and node.value is None:
        return NoneType
    if isinstance(node, ast.Subscript):
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    found = namespace.get(node.id, getattr(builtins, node.id, None))
    return found if isinstance(found, type) else None


def _is_never_a_context(kind: type) -> bool:
    if getattr(kind, "_is_protocol", False):
        return False
    return kind in PLAIN_TYPES or model_fields_of(kind) is not None or dataclasses.is_dataclass(kind)
