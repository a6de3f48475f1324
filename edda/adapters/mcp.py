"""Workflows as tools of an MCP server: an assistant starts them, looks after them, and fetches their results.

Each workflow becomes a tool `start_<name>`, whose schema is made of its signature; `status`, `result`, `cancel` and
`send_event` are for all of them. A workflow may take days: a start answers at once with the id of the instance, and
`result` waits for a while and then says how it stands. Laws:
- What is not offered cannot be seen: instances of other workflows are unknown here.
- The server begins an app that does not run, and ends it with itself; one that runs it leaves alone.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import typing
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Annotated, Any, Final, Literal, ParamSpec, TypeVar

from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python

from edda.app import EddaApp
from edda.core.event import JSON_TYPE, TARGET, CloudEvent, Receipt
from edda.core.lifecycle import ENDED, SET_ASIDE
from edda.engine.codec import encode_event_data
from edda.exceptions import ConflictError, EddaError, InstanceNotFoundError, MissingExtraError
from edda.workflow import Workflow

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations
except ImportError as error:
    raise MissingExtraError(what=__name__, package="mcp", extra="mcp") from error

__all__ = ["InstanceState", "mcp_server"]

P = ParamSpec("P")
R = TypeVar("R")

WAIT_SECONDS_MAX: Final = 300.0
"""Of one call of `result`: the next one goes on waiting."""

PROGRESS_SECONDS: Final = 5.0
"""Between signs of life to a client that waits."""

EVENT_SOURCE: Final = "/mcp"
"""Of events that are sent here; with their id it names them."""

_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")


class InstanceState(BaseModel):
    """How a workflow instance stands."""

    instance_id: str
    status: str
    reason: str = ""
    """What it waits for, why it was set aside, or how it failed."""
    done: bool = False
    result: Any = None
    """Once it has completed."""


def mcp_server(
    app: EddaApp,
    workflows: Iterable[Workflow[..., Any]],
    *,
    name: str = "edda",
    event_types: Iterable[str] = (),
    instructions: str | None = None,
) -> MCPServer[None]:
    """A server that offers these workflows. `event_types`: the events that may be sent; without any there is no
    `send_event`.

    It is an ordinary `mcp.server.MCPServer`: add tools of your own, and run it with the transport that you need.
    """
    offered = list(workflows)
    _must_differ(offered)
    server = MCPServer[None](name, instructions=instructions or _INSTRUCTIONS, lifespan=lambda _: _life_of(app))
    desk = _Desk(app, {workflow.name for workflow in offered})
    for workflow in offered:
        _add_start(server, desk, workflow)
    looks = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    server.add_tool(_told(desk.status), "status", description=_first_line(desk.status), annotations=looks)
    server.add_tool(_told(desk.result), "result", description=_first_line(desk.result), annotations=looks)
    server.add_tool(
        _told(desk.cancel),
        "cancel",
        description=_first_line(desk.cancel),
        annotations=ToolAnnotations(destructive_hint=True, idempotent_hint=True),
    )
    if types := tuple(event_types):
        server.add_tool(_send_event(desk, types), "send_event")
    return server


_INSTRUCTIONS: Final = (
    "Durable workflows, which may take seconds or days. start_... answers at once with an instance_id; ask result for "
    "what comes of it, again and again until done is true. A start with an instance_id of your own is safe to repeat."
)


# -- starting ----------------------------------------------------------------------------------------------------------


def _add_start(server: MCPServer[None], desk: _Desk, workflow: Workflow[..., Any]) -> None:
    described = inspect.getdoc(workflow.function) or f"The workflow {workflow.name}."
    server.add_tool(
        _start(desk, workflow),
        _tool_name(workflow),
        title=f"Start {workflow.name}",
        description=f"{described}\n\nStarts an instance of it and returns its id at once.",
        annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False),
    )


def _tool_name(workflow: Workflow[..., Any]) -> str:
    """Of the letters that names of tools may have."""
    return f"start_{_NOT_IN_A_NAME.sub('_', workflow.name)}"


def _must_differ(workflows: list[Workflow[..., Any]]) -> None:
    names = Counter(map(_tool_name, workflows))
    if twice := [workflow.name for workflow in workflows if names[_tool_name(workflow)] > 1]:
        raise ValueError(f"several workflows would be one tool: {twice}")


def _start(desk: _Desk, workflow: Workflow[..., Any]) -> Callable[..., Awaitable[InstanceState]]:
    """A function with the parameters of the workflow and, for an id of the caller's own, `instance_id`."""

    async def start(**arguments: Any) -> InstanceState:
        instance_id = None if chosen is None else arguments.pop(chosen.name)
        try:
            handle = await desk.app.start(workflow.options(id=instance_id), **arguments)
        except ConflictError as error:
            if error.instance_id and not await desk.is_offered(error.instance_id):
                raise ToolError(f"the instance_id '{instance_id}' is taken, choose another") from error
            raise
        return InstanceState(instance_id=handle.id, status=await handle.status())

    parameters = _parameters(workflow)
    taken = {parameter.name for parameter in parameters}
    chosen = None if _INSTANCE_ID.name in taken else _INSTANCE_ID
    everything = [*parameters, *([chosen] if chosen is not None else [])]
    start.__name__ = workflow.function.__name__
    start.__annotations__ = {parameter.name: parameter.annotation for parameter in everything} | {
        "return": InstanceState
    }
    start.__signature__ = inspect.Signature(everything, return_annotation=InstanceState)  # type: ignore[attr-defined]
    return _told(start)


_INSTANCE_ID: Final = inspect.Parameter(
    "instance_id",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None, Field(description="Your own id for the instance: asking twice with the same one starts it once.")
    ],
)


def _parameters(workflow: Workflow[..., Any]) -> list[inspect.Parameter]:
    """By name, without the context, with annotations that are types and no text."""
    hints = typing.get_type_hints(workflow.function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in list(inspect.signature(workflow.function).parameters.values())[1:]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(
                f"workflow {workflow.name} cannot be a tool: its parameter {parameter} has no name that a caller could "
                "give. Write a workflow with named parameters that calls it."
            )
        annotation = hints.get(parameter.name, Any)
        parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=annotation))
    return parameters


# -- looking after -----------------------------------------------------------------------------------------------------


class _Desk:
    """What is asked about instances."""

    def __init__(self, app: EddaApp, offered: set[str]) -> None:
        self.app = app
        self._offered = offered

    async def is_offered(self, instance_id: str) -> bool:
        """Raises InstanceNotFoundError."""
        return await self.app.workflow_of(instance_id) in self._offered

    async def must_be_offered(self, instance_id: str) -> None:
        if not await self.is_offered(instance_id):
            raise InstanceNotFoundError(instance_id)

    async def status(self, instance_id: str) -> InstanceState:
        """How an instance stands, and what it waits for."""
        await self.must_be_offered(instance_id)
        return await self._state(instance_id)

    async def result(
        self,
        instance_id: str,
        ctx: Context,
        wait_seconds: Annotated[float, Field(ge=0, le=WAIT_SECONDS_MAX)] = 20.0,
    ) -> InstanceState:
        """What came of an instance. Waits up to wait_seconds for its end; if done is false then, ask again later."""
        await self.must_be_offered(instance_id)
        ending = asyncio.ensure_future(self._ending(instance_id))
        try:
            left = wait_seconds
            while not ending.done() and left > 0:
                await asyncio.wait({ending}, timeout=min(left, PROGRESS_SECONDS))
                left -= PROGRESS_SECONDS
                await ctx.report_progress(wait_seconds - max(left, 0), wait_seconds)
        finally:
            ending.cancel()
        return await self._state(instance_id)

    async def cancel(self, instance_id: str) -> InstanceState:
        """Ask an instance to stop and to undo what it did."""
        await self.must_be_offered(instance_id)
        await self.app.cancel(instance_id, by="mcp")
        return await self._state(instance_id)

    async def send(self, event: CloudEvent) -> Receipt:
        if event.target is not None:
            await self.must_be_offered(event.target)
        (receipt,) = await self.app.accept([event])
        return receipt

    async def _state(self, instance_id: str) -> InstanceState:
        status = await self.app.status_of(instance_id)
        state = InstanceState(
            instance_id=instance_id,
            status=status,
            reason=await self.app.reason_of(instance_id),
            done=status in ENDED | SET_ASIDE,
        )
        if status == "completed":
            value = await self.app.result_of(instance_id, timeout=None)
            state.result = to_jsonable_python(value, bytes_mode="base64", serialize_unknown=True)
        return state

    async def _ending(self, instance_id: str) -> None:
        """Returns when it has ended, however."""
        try:
            await self.app.result_of(instance_id, timeout=None)
        except Exception:
            return


def _send_event(desk: _Desk, types: tuple[str, ...]) -> Callable[..., Awaitable[str]]:
    async def send_event(
        event_type: str,
        data: dict[str, Any],
        event_id: Annotated[str, Field(description="Your own id for it: the same one twice is one event.")],
        instance_id: Annotated[str | None, Field(description="Only for this instance.")] = None,
        subject: str | None = None,
    ) -> str:
        """Send an event to the workflows that wait for it."""
        receipt = await desk.send(
            CloudEvent(
                id=event_id,
                source=EVENT_SOURCE,
                type=event_type,
                subject=subject,
                datacontenttype=JSON_TYPE,
                json=encode_event_data(data).text,
                extensions={} if instance_id is None else {TARGET: instance_id},
            )
        )
        if receipt in (Receipt.NO_SUCH_INSTANCE, Receipt.INSTANCE_ENDED):
            raise ToolError(f"nobody waits for it: {receipt.value}")
        return str(receipt.value)

    send_event.__annotations__["event_type"] = Literal[types]
    return _told(send_event)


# -- around the tools --------------------------------------------------------------------------------------------------


def _told(tool: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Errors of edda are told to the caller; all others are defects, which the server logs."""

    @wraps(tool)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await tool(*args, **kwargs)
        except EddaError as error:
            raise ToolError(f"{type(error).__name__}: {error}") from error

    return call


def _first_line(method: Callable[..., object]) -> str:
    return (inspect.getdoc(method) or "").partition("\n\n")[0]


@asynccontextmanager
async def _life_of(app: EddaApp) -> AsyncGenerator[None]:
    if app.running:
        yield
        return
    async with app:
        yield
