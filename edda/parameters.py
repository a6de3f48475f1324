"""What a workflow is started with, as a JSON schema, for whoever draws a form of it or hands it to a tool.

It describes and decides nothing: what a start takes is decided by the signature's codec. Law: every signature is
described, however odd its annotations are; what cannot be said in a schema is `{}`, which is any JSON.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from inspect import Parameter
from typing import Annotated, Any, Final

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from edda.engine.codec.annotations import Annotations, plain_function
from edda.workflow import Workflow

VARIADIC: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def schema_of(workflow: Workflow[..., Any]) -> dict[str, Any] | None:
    """An object whose `properties` are the parameters in their order; each has `$defs` of its own.

    None where a function takes any number of arguments (`*rest`, `**options`): no schema says which they are.
    """
    parameters = _parameters(workflow)
    if any(parameter.kind in VARIADIC for parameter in parameters):
        return None
    annotations = Annotations(plain_function(workflow.function))
    return {
        "type": "object",
        "properties": {parameter.name: _schema(parameter, annotations) for parameter in parameters},
        "required": [parameter.name for parameter in parameters if _is_required(parameter)],
    }


def in_order(
    workflow: Workflow[..., Any], arguments: Mapping[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Arguments by name as a call takes them: what may only be passed by position is."""
    by_name = dict(arguments)
    by_position: list[object] = []
    for parameter in _parameters(workflow):
        if parameter.kind is not Parameter.POSITIONAL_ONLY or parameter.name not in by_name:
            break
        by_position.append(by_name.pop(parameter.name))
    return tuple(by_position), by_name


def _parameters(workflow: Workflow[..., Any]) -> list[Parameter]:
    """Without the context."""
    return list(inspect.signature(workflow.function).parameters.values())[1:]


def _is_required(parameter: Parameter) -> bool:
    default: object = parameter.default
    return default.is_required() if isinstance(default, FieldInfo) else default is Parameter.empty


def _schema(parameter: Parameter, annotations: Annotations) -> dict[str, Any]:
    default: object = parameter.default
    try:
        hint: Any = annotations.resolve(parameter.name)
        if hint is Parameter.empty:
            hint = Any
        if isinstance(default, FieldInfo):
            hint = Annotated[hint, default]
        elif default is not Parameter.empty:
            hint = Annotated[hint, FieldInfo(default=default)]
        return TypeAdapter[Any](hint).json_schema(schema_generator=_Quietly)
    except (PydanticUserError, NameError, AttributeError, SyntaxError, TypeError, ValueError, LookupError):
        return {}


class _Quietly(GenerateJsonSchema):
    """A default that JSON cannot say is left out, without a warning."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012
