"""How the arguments and results of a workflow or activity are stored, prepared once per function.

A plan hangs on the object it is for; errors about a signature come at first use, naming the function.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from edda.activity import Activity
from edda.compensation import Compensation
from edda.engine.codec import SignatureCodec
from edda.workflow import Workflow

_IMMUTABLE: Final = frozenset({str, int, float, bool, type(None)})


class Code(NamedTuple):
    """What an attempt runs."""

    name: str
    function: Callable[..., Any]
    is_async: bool
    takes_context: bool
    timeout: float | None
    """Seconds for one attempt."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is prepared for one function."""

    signature: SignatureCodec
    code: Code

    def copy_arguments(
        self, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for an attempt that shares nothing mutable with the body that made the call."""
        for value in args:
            if type(value) not in _IMMUTABLE:
                return self.signature.decode(text)
        for value in kwargs.values():
            if type(value) not in _IMMUTABLE:
                return self.signature.decode(text)
        return args, kwargs


def plan_of(item: Workflow[..., Any] | Activity[..., Any]) -> Plan:
    plan: Plan | None = item.plan
    if plan is None:
        if isinstance(item, Activity):
            code = Code(item.name, item.function, item.is_async, item.takes_context, item.timeout)
        else:
            code = Code(item.name, item.function, True, True, None)
        validate = isinstance(item, Workflow)  # the types of an activity's arguments are Python's business
        signature = SignatureCodec(item.function, skip_first=code.takes_context, validate=validate)
        plan = item.plan = Plan(signature, code)
    return plan


@functools.lru_cache(maxsize=4096)
def compensation_codec(compensation: Compensation) -> SignatureCodec:
    """For the arguments of `register_compensation`."""
    return SignatureCodec(compensation.function, skip_first=True, validate=False)


def undo_arguments(compensation: Compensation, by_name: dict[str, Any], result: object) -> dict[str, Any]:
    """What a compensation is called with: the activity's arguments by name, then keys of its result; filtered.

    An argument beats a key of the result of the same name; a parameter named `result` gets the whole result.
    """
    offered: dict[str, Any] = {}
    if isinstance(result, dict):
        items = cast(dict[object, object], result).items()
        offered.update({key: value for key, value in items if isinstance(key, str)})
    else:
        fields = cast(Iterable[str], getattr(type(result), "model_fields", ()))
        offered.update({name: getattr(result, name) for name in fields})
    offered["result"] = result
    offered.update(by_name)
    accepted, takes_any = _parameters(compensation.function)
    if takes_any:
        offered.pop("result", None)
        return offered
    return {name: value for name, value in offered.items() if name in accepted}


def _parameters(function: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    names = frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)
