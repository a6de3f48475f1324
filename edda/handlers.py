"""Handlers of events, `@app.on_event(type)`: a function becomes a workflow of one activity, started by each event.

So a handler is as durable as everything else: stored before the sender hears of it, retried by its policy, visible as a
failed instance when it fails for good, and run once for an event however often that is delivered.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

from edda.activity import Activity
from edda.context import WorkflowContext
from edda.events import ReceivedEvent
from edda.retry import RetryPolicy
from edda.workflow import Workflow, workflows


def handler_workflow(
    event_type: str,
    function: Callable[[ReceivedEvent], Any],
    *,
    name: str | None,
    retry_policy: RetryPolicy | None,
    timeout: float | None,
) -> Workflow[..., Any]:
    """Declare the workflow that runs a handler."""
    name = name or f"{event_type}/{getattr(function, '__name__', 'handler')}"
    step = Activity[..., Any](
        _on_the_loop(function) if inspect.iscoroutinefunction(function) else _in_a_thread(function),
        name=name,
        retry_policy=retry_policy,
        timeout=timeout,
        takes_context=False,
    )

    async def handle(ctx: WorkflowContext, event: dict[str, Any]) -> None:
        await step(ctx, event)

    handle.__module__, handle.__qualname__ = function.__module__, getattr(function, "__qualname__", name)
    declared = Workflow[..., Any](handle, name=name)
    workflows.add(declared)
    return declared


def check_handler(event_type: str, function: Callable[[ReceivedEvent], Any]) -> None:
    """Said where it is declared: every event would fail for good, one by one."""
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        name = getattr(function, "__name__", "handler")
        raise TypeError(
            f"the handler {name} of '{event_type}' is called with the event, and nothing else: {error}"
        ) from None
    except ValueError:  # written in C, and says nothing
        pass


def _on_the_loop(function: Callable[[ReceivedEvent], Any]) -> Callable[..., Any]:
    async def call(event: dict[str, Any]) -> None:
        await function(received(event))

    return call


def _in_a_thread(function: Callable[[ReceivedEvent], Any]) -> Callable[..., Any]:
    def call(event: dict[str, Any]) -> None:
        function(received(event))

    return call


def received(carried: dict[str, Any]) -> ReceivedEvent:
    """The event as its handler sees it."""
    text, blob = carried.get("json"), carried.get("base64")
    return ReceivedEvent(
        data=from_json(text) if text is not None else None if blob is None else base64.b64decode(blob),
        type=carried["type"],
        source=carried["source"],
        id=carried["id"],
        time=carried.get("time"),
        datacontenttype=carried.get("datacontenttype"),
        subject=carried.get("subject"),
        extensions=carried.get("extensions", {}),
    )
