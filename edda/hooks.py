"""Hooks: what an observer may be told. Any object with some of these methods will do.

Hooks run beside the work, in order, from a bounded queue, each for at most 5 seconds; one that raises or hangs changes
nothing but is logged.
"""

from __future__ import annotations

from typing import Any, Protocol


class WorkflowHooks(Protocol):
    """All the methods an observer may have; each is optional."""

    async def on_workflow_start(self, instance_id: str, workflow_name: str, input_data: dict[str, Any]) -> None:
        """The body is entered, on start and again after every resume that replays it."""
        ...

    async def on_workflow_complete(self, instance_id: str, workflow_name: str, result: Any) -> None: ...

    async def on_workflow_failed(self, instance_id: str, workflow_name: str, error: BaseException) -> None: ...

    async def on_workflow_cancelled(self, instance_id: str, workflow_name: str) -> None: ...

    async def on_activity_start(
        self, instance_id: str, activity_id: str, activity_name: str, is_replaying: bool
    ) -> None: ...

    async def on_activity_complete(
        self, instance_id: str, activity_id: str, activity_name: str, result: Any, cache_hit: bool
    ) -> None:
        """`cache_hit`: the result came from history, the activity did not run."""
        ...

    async def on_activity_failed(
        self, instance_id: str, activity_id: str, activity_name: str, error: BaseException
    ) -> None:
        """The activity failed for good."""
        ...

    async def on_activity_retry(
        self, instance_id: str, activity_id: str, activity_name: str, error: BaseException, attempt: int, delay: float
    ) -> None:
        """Attempt number `attempt` failed; another one follows after `delay` seconds."""
        ...

    async def on_event_sent(self, event_type: str, event_source: str, event_data: Any) -> None: ...

    async def on_event_received(self, instance_id: str, event_type: str, event_data: Any) -> None: ...


class HooksBase(WorkflowHooks):
    """A base with every hook doing nothing, for classes that override a few."""
