"""From what is owed to what is run: the step of one compensation, with the arguments of the activity that it undoes."""

from __future__ import annotations

import inspect
from typing import Any

from edda.activity import activities
from edda.compensation import compensations
from edda.core.history import Kind
from edda.core.retry import RetryPolicy
from edda.core.saga import Owed
from edda.engine.codec import Stored, ValueCodec
from edda.engine.plans import Code, compensation_codec, plan_of, undo_arguments
from edda.engine.step import Step
from edda.exceptions import EddaError

_UNTYPED = ValueCodec(what="the result of an activity")


def step_for(owed: Owed, *, default_policy: RetryPolicy, crashes: int) -> Step:
    """The step that undoes. Raises EddaError where this process does not know the compensation."""
    declared = compensations.get(owed.compensation)
    if declared is None:
        raise EddaError(
            f"compensation {owed.compensation}, owed for {owed.event.call_id} of {owed.event.instance_id}, is not "
            "known in this process: import the module that declares it, then call handle.retry()"
        )
    args, kwargs = _arguments(owed)
    is_async = inspect.iscoroutinefunction(declared.function)
    code = Code(declared.name, declared.function, is_async, takes_context=True, timeout=declared.timeout)
    step = Step(
        owed.call_id,
        code,
        args,
        kwargs,
        policy=declared.retry_policy or default_policy,
        interruptible=True,
        crashes=crashes,
    )
    step.resume(owed.failures)
    return step


def _arguments(owed: Owed) -> tuple[tuple[Any, ...], dict[str, Any]]:
    event = owed.event
    declared = compensations.get(owed.compensation)
    assert declared is not None
    if event.kind == Kind.COMPENSATION_REGISTERED:
        return compensation_codec(declared).decode(event.input or "{}")
    activity = activities.get(event.name)
    if activity is not None:
        signature = plan_of(activity).signature
        by_name, codec = signature.by_name(event.input or "{}"), signature.result
    else:  # ctx.run, or an activity that this process does not know: what was recorded says its own types
        by_name, codec = compensation_codec(declared).by_name(event.input or "{}"), _UNTYPED
    stored = event.output is not None or event.blob is not None
    result = codec.decode(Stored(event.output, event.blob)) if stored else None
    return (), undo_arguments(declared, by_name, result)
