"""What an app does with instances: starting, asking about them, cancelling, letting them go on. Part of `EddaApp`."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any, ParamSpec, TypeVar

from edda.core.commit import Creation, NewInstance
from edda.core.history import InstanceId
from edda.core.lifecycle import CANCELLABLE, ENDED, REPAIRABLE, Status
from edda.engine.codec import decode_error
from edda.engine.engine import Engine
from edda.engine.plans import plan_of, too_large
from edda.engine.replies import decode_result, ending_error
from edda.exceptions import (
    ConflictError,
    InstanceNotFoundError,
    NotCancellableError,
    NotRepairableError,
)
from edda.history import HistoryEntry, entry_of
from edda.storage.port import InstanceRow
from edda.workflow import (
    App,
    BoundWorkflow,
    StartOptions,
    Workflow,
    WorkflowHandle,
)

P = ParamSpec("P")
R = TypeVar("R")


class AppInstances:
    """Needs of the app: its engine, and the workflows that it knows."""

    _max_payload_bytes: int

    @property
    def _app(self) -> App:
        """The whole app that this is a part of."""
        raise NotImplementedError

    async def _ready(self) -> Engine:
        raise NotImplementedError

    def _registered(self) -> Mapping[str, Workflow[..., Any]]:
        raise NotImplementedError

    async def start(
        self, workflow: Workflow[P, R] | BoundWorkflow[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]:
        """Start an instance on this app: `await app.start(order_workflow, order_id="ORD-1")`."""
        bound = (
            workflow.on(self._app) if isinstance(workflow, BoundWorkflow) else BoundWorkflow(workflow, app=self._app)
        )
        return await bound.start(*args, **kwargs)

    def handle(self, instance_id: str) -> WorkflowHandle[Any]:
        """The handle of any instance, by its id."""
        return WorkflowHandle(instance_id, self._app)

    async def start_instance(
        self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: StartOptions
    ) -> WorkflowHandle[Any]:
        """What `Workflow.start` does on this app: validate, store, run."""
        engine = await self._ready()
        self._must_be_current(workflow)
        new = self._new_instance(engine, workflow, args, kwargs, options)
        if options.session is not None:
            creation = await engine.store.create_in(options.session, new)
        else:
            creation = await engine.start(new)
        if not creation.created:
            _check_same_start(new, creation, options)
        return WorkflowHandle(new.id, self._app)

    def _new_instance(
        self,
        engine: Engine,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: StartOptions,
    ) -> NewInstance:
        signature = plan_of(workflow).signature
        bound = signature.bind(args, kwargs)
        text = signature.encode(bound.args, bound.kwargs)
        if len(text) > self._max_payload_bytes:
            raise too_large(f"the input of workflow {workflow.name}", len(text), limit=self._max_payload_bytes)
        return NewInstance(
            id=InstanceId(options.id or f"{workflow.name}-{engine.environment.sortable_id()}"),
            workflow=workflow.name,
            input=text,
            args_hash=signature.canonical_hash(args, kwargs),
            source_hash=_source_hash(workflow),
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
        )

    def _must_be_current(self, workflow: Workflow[..., Any]) -> None:
        """A name means one workflow: an instance started from a shadowed one would run the other."""
        known = self._registered().get(workflow.name)
        if known is workflow:
            return
        if known is None:
            raise ConflictError(f"Workflow '{workflow.name}' is not among the workflows=[...] of {self!r}")
        raise ConflictError(
            f"Two workflows are named '{workflow.name}': {_place(known)} is the one that runs, {_place(workflow)} was "
            'to be started. Give one of them another: @workflow(name="...").'
        )

    async def result_of(self, instance_id: str, *, timeout: float | None) -> Any:  # noqa: ASYNC109 - part of the API
        """What `handle.result()` does."""
        engine = await self._ready()
        try:
            if timeout is None:
                ending = await engine.wait(InstanceId(instance_id))
            else:
                async with asyncio.timeout(timeout):
                    ending = await engine.wait(InstanceId(instance_id))
        except TimeoutError:
            status, reason = await self.status_of(instance_id), await self.reason_of(instance_id)
            raise TimeoutError(
                f"Workflow instance '{instance_id}' has no result after {timeout} seconds: it is {status}"
                + (f" ({reason})" if reason else "")
            ) from None
        if ending.status is Status.COMPLETED:
            return decode_result(ending.workflow, ending.output, ending.blob)
        raise ending_error(instance_id, ending.status, ending.error)

    async def status_of(self, instance_id: str) -> str:
        return (await self._row(instance_id)).status.value

    async def reason_of(self, instance_id: str) -> str:
        row = await self._row(instance_id)
        if row.reason or row.error is None:
            return row.reason
        error = decode_error(row.error)
        return f"{type(error).__name__}: {error}" if row.status in ENDED else str(error)

    async def history_of(self, instance_id: str) -> list[HistoryEntry]:
        engine = await self._ready()
        histories = await engine.store.histories([InstanceId(instance_id)])
        if not histories.get(InstanceId(instance_id)):
            await self._row(instance_id)
        return [entry_of(event) for event in histories.get(InstanceId(instance_id), [])]

    async def _row(self, instance_id: str) -> InstanceRow:
        engine = await self._ready()
        row = await engine.store.instance(InstanceId(instance_id))
        if row is None:
            raise InstanceNotFoundError(instance_id)
        return row

    async def cancel(self, instance_id: str, *, by: str = "user") -> None:
        """Ask an instance to cancel; see `WorkflowHandle.cancel`."""
        engine = await self._ready()
        before = await engine.cancel(InstanceId(instance_id), by=by)
        if before is None:
            raise InstanceNotFoundError(instance_id)
        if before.status not in CANCELLABLE:
            raise NotCancellableError(instance_id, before.status.value)

    async def retry(self, instance_id: str) -> None:
        """Let an instance go on that was set aside or could not be undone; see `WorkflowHandle.retry`."""
        engine = await self._ready()
        before = await engine.retry(InstanceId(instance_id))
        if before is None:
            raise InstanceNotFoundError(instance_id)
        if before.status not in REPAIRABLE:
            raise NotRepairableError(instance_id, before.status.value)


def _check_same_start(new: NewInstance, there: Creation, options: StartOptions) -> None:
    """An id with other arguments may be wanted as it is; one of another workflow has another result, and never is."""
    if there.workflow != new.workflow:
        raise ConflictError(
            f"Workflow instance '{new.id}' exists already: it was started with workflow '{there.workflow}', and "
            f"cannot be returned as one of '{new.workflow}'. Choose another id.",
            instance_id=new.id,
        )
    if there.args_hash != new.args_hash and options.on_conflict == "error":
        raise ConflictError(
            f"Workflow instance '{new.id}' exists already and was started with other arguments. Choose another id, or "
            'options(..., on_conflict="return") to get the existing one.',
            instance_id=new.id,
        )


def _place(workflow: Workflow[..., Any]) -> str:
    return f"{workflow.function.__module__}.{workflow.function.__qualname__}"


@functools.lru_cache(maxsize=1024)
def _source_hash(workflow: Workflow[..., Any]) -> str:
    """Of the function's text, where there is one: shown to people, decides nothing."""
    try:
        source = inspect.getsource(workflow.function)
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(source.encode()).hexdigest()
