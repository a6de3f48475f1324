"""Agents of Pydantic AI that survive crashes: `Agent(..., capabilities=[EddaDurability()])`, run in a workflow.

Each request to a model and each call of a tool becomes a recorded activity, by the public interface that Pydantic AI
has for engines of durable execution (`pydantic_ai.durable_exec`). The agent's own loop runs in the workflow function,
and is replayed with it. Outside of a workflow function the agent is as it would be without.

Laws: the names of the activities are stored, so the agent's `name`, the ids of its toolsets and the names of its tools
are part of the history. An activity may run more than once, as any.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal, TypedDict, cast

from edda.activity import Activity
from edda.context import WorkflowContext, current_run
from edda.engine.body_run import BodyRun
from edda.exceptions import MissingExtraError
from edda.retry import DEFAULT_RETRY_POLICY, RetryPolicy

try:
    from pydantic_ai.agent import EventStreamHandler
    from pydantic_ai.capabilities.abstract import WrapRunHandler
    from pydantic_ai.durable_exec import (
        JSON_CODEC,
        BaseDurabilityCapability,
        DurabilityEngineSpec,
        DurableOperationBackend,
        DurableOperationId,
        JournalCallableOperationBackend,
        RoleBasedOperationConfig,
        ToolsetKind,
        conversation_id_from_run_id,
        replay_scope,
    )
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import Model
    from pydantic_ai.run import AgentRunResult
    from pydantic_ai.tools import AgentDepsT, RunContext
except ImportError as error:
    raise MissingExtraError(what=__name__, package="pydantic-ai-slim", extra="pydantic-ai") from error

__all__ = ["ActivityOptions", "EddaDurability"]

METADATA_KEY: Final = "edda"
"""Of a tool, for its `ActivityOptions`."""


class ActivityOptions(TypedDict, total=False):
    """How the activity of a model request or of a tool is run; as in `@activity(...)`."""

    retry_policy: RetryPolicy
    timeout: float


class EddaDurability(BaseDurabilityCapability[AgentDepsT]):
    """Makes an agent durable in workflow functions of edda.

    Args:
        name: Prefix of the names of its activities; by default the agent's name.
        models: Further models that a run may choose, by the id that is stored.
        event_stream_handler: Sees the events of the model and of the tools, in activities.
        model, tool: Retry policy and timeout of requests and of tools. A tool's own are in its metadata:
            `@agent.tool(metadata={"edda": ActivityOptions(timeout=5)})`, or `False` for a tool that runs in the
            workflow function itself, because it makes durable calls or is pure.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="edda",
        durable_unit_noun="activity",
        durable_unit_plural="activities",
        durable_container_noun="workflow",
        codec=JSON_CODEC,
        # A workflow function opens no connections: each activity enters what it needs.
        toolset_lifecycles={"function": "enter-never", "mcp": "enter-never", "dynamic": "enter-never"},
        tool_config_key=METADATA_KEY,
    )

    def __init__(
        self,
        *,
        name: str | None = None,
        models: Mapping[str, Model] | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
        model: ActivityOptions | None = None,
        tool: ActivityOptions | None = None,
    ) -> None:
        super().__init__(models=models, event_stream_handler=event_stream_handler, name=name)
        self._model_options = model or ActivityOptions()
        self._tool_options = tool or ActivityOptions()

    @property
    def in_durable_context(self) -> bool:
        return _workflow_run() is not None

    def get_durable_operation_backend(self) -> DurableOperationBackend[ActivityOptions]:
        return _Backend(
            agent_name=self.name,
            default_model_id=self.default_model_id,
            config=RoleBasedOperationConfig(
                model=self._model_options,
                event=ActivityOptions(),
                capability=ActivityOptions(),
                tool=self._tool_options,
                resolve_tool=self._options_of_tool,
            ),
        )

    def _options_of_tool(
        self, operation_id: DurableOperationId, tool: object | None, tool_name: str
    ) -> ActivityOptions | Literal[False]:
        own = _metadata_of(tool).get(METADATA_KEY)
        if own is False:
            return False
        if own is not None and not isinstance(own, Mapping):
            raise UserError(f"the metadata '{METADATA_KEY}' of tool {tool_name!r} is ActivityOptions(...) or False")
        return cast(ActivityOptions, {**self._tool_options, **cast(Mapping[str, Any], own or {})})

    def _toolset_base_config(self, kind: ToolsetKind) -> ActivityOptions:
        return self._tool_options

    # -- the same at every replay --------------------------------------------------------------------------------------

    def get_default_run_id(self) -> str | None:
        run = _workflow_run()
        return str(WorkflowContext(run).uuid()) if run is not None else None

    def get_default_conversation_id(self, run_id: str) -> str | None:
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    def get_run_clock(self) -> Callable[[], datetime] | None:
        run = _workflow_run()
        return WorkflowContext(run).now if run is not None else None

    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        run = _workflow_run()
        if run is None:
            return await super().wrap_run(ctx, handler=handler)
        with replay_scope(is_replaying=lambda: run.replaying):
            return await super().wrap_run(ctx, handler=handler)


class _Backend(JournalCallableOperationBackend[ActivityOptions]):
    """A unit of Pydantic AI as an activity of the running workflow."""

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: ActivityOptions,
    ) -> object:
        run = _workflow_run()
        if run is None:  # in an activity, or outside of edda
            return await body()

        async def unit() -> Any:
            return await body()

        step = Activity[[], Any](
            unit,
            name=name,
            retry_policy=_without_hopeless(config.get("retry_policy", DEFAULT_RETRY_POLICY)),
            timeout=config.get("timeout"),
            takes_context=False,
        )
        return await run.activity(step, (), {}, call_id=None)


def _metadata_of(tool: Any) -> Mapping[str, Any]:
    """Of a tool as a toolset has it; there is none where the agent asks for all tools."""
    return {} if tool is None else tool.tool_def.metadata or {}


def _without_hopeless(policy: RetryPolicy) -> RetryPolicy:
    """An agent that is used wrongly is so in every attempt."""
    return replace(policy, non_retryable_error_types=(*policy.non_retryable_error_types, UserError))


def _workflow_run() -> BodyRun | None:
    """The run of the workflow function that this code is part of."""
    run = current_run.get()
    return run if isinstance(run, BodyRun) else None
