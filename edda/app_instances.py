"""What an app does with instances: starting, asking about them, cancelling, letting them go on. Part of `EddaApp`."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from edda.careful_log import CarefulLogger
from edda.core.commit import NewInstance
from edda.core.history import InstanceId
from edda.core.lifecycle import CANCELLABLE, ENDED, REPAIRABLE, Status
from edda.engine.codec import decode_error, in_words, message_of
from edda.engine.engine import Engine
from edda.engine.environment import Environment
from edda.engine.payload import check_size
from edda.engine.replies import decode_result, ending_error
from edda.engine.starts import check_same_start, new_instance
from edda.exceptions import (
    ConflictError,
    InstanceNotFoundError,
    NotCancellableError,
    NotRepairableError,
)
from edda.history import HistoryEntry, entry_of
from edda.instances import InstanceEntry
from edda.parameters import in_order, schema_of
from edda.storage.port import InstanceRow
from edda.storage.reads import PAGE_MAX, InstanceFilter, InstanceSummary, Source
from edda.workflow import (
    App,
    BoundWorkflow,
    StartOptions,
    Workflow,
    WorkflowHandle,
    check_id,
)

log = CarefulLogger("edda.app")

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

    def _current_trace(self) -> str | None:
        """The trace context of the code that calls us."""
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

    async def instances(
        self,
        *,
        status: str | Collection[str] = (),
        workflow: str | Collection[str] = (),
        id_prefix: str = "",
        started_since: datetime | None = None,
        started_before: datetime | None = None,
        argument: tuple[str, Any] | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[InstanceEntry]:
        """The instances that fit all that is given, newest first, read page by page.

        `argument`: path and value of one that it was started with by name, such as `("order.id", "ORD-1")`. Of a
        workflow that declares it among its `search_fields` it is found by an index, as everything else is; otherwise
        that looks into each instance. A moment, a UUID, a decimal or a member of an enum is what JSON has for it.
        ValueError for a value that is no scalar. Naive times are UTC.
        """
        which = InstanceFilter(
            statuses=frozenset(Status(name) for name in _several(status)),
            workflows=frozenset(_several(workflow)),
            id_prefix=id_prefix,
            created_from_us=_in_us(started_since),
            created_before_us=_in_us(started_before),
            argument=None if argument is None else _as_recorded(*argument),
        )
        engine = await self._ready()
        page: str | None = None
        count = 0
        while limit is None or count < limit:
            found = await engine.store.instance_page(which, limit=PAGE_MAX, page=page)
            for row in found.rows[: None if limit is None else limit - count]:
                yield _entry(row)
            count += len(found.rows)
            page = found.next_page
            if page is None:
                return

    async def start_instance(
        self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: StartOptions
    ) -> WorkflowHandle[Any]:
        """What `Workflow.start` does on this app: validate, store, run."""
        engine = await self._ready()
        self._must_be_current(workflow)
        new = new_start(
            workflow,
            args,
            kwargs,
            id=options.id,
            environment=engine.environment,
            payload_bytes_max=self._max_payload_bytes,
            trace=self._current_trace(),
        )
        if options.session is not None:
            creation = await engine.store.create_in(options.session, new)
        else:
            creation = await engine.start(new)
        if not creation.created:
            check_same_start(new, creation, on_conflict=options.on_conflict)
        return WorkflowHandle(new.id, self._app)

    def parameters_of(self, workflow: str) -> dict[str, Any] | None:
        """What one of its workflows is started with, as a JSON schema; None where that is not known.

        An object, with the parameters as `properties`. KeyError for a name that is not among `workflow_names`.
        """
        return schema_of(self._registered()[workflow])

    def new_instance_of(self, workflow: str, arguments: Mapping[str, object], *, id: str | None = None) -> NewInstance:
        """A start from data: arguments by name, as JSON has them, validated as in code. It is not stored yet.

        Raises what is wrong with the arguments, ValueError for an id that cannot be one, and KeyError as above.
        """
        known = self._registered()[workflow]
        if id is not None:
            check_id(id)
        args, kwargs = in_order(known, arguments)
        return new_start(
            known,
            args,
            kwargs,
            id=id,
            environment=Environment(),
            payload_bytes_max=self._max_payload_bytes,
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

    async def workflow_of(self, instance_id: str) -> str:
        """The name of its workflow."""
        return (await self._row(instance_id)).workflow

    async def reason_of(self, instance_id: str) -> str:
        row = await self._row(instance_id)
        if row.reason or row.error is None:
            return row.reason
        error = decode_error(row.error)
        return in_words(error) if row.status in ENDED else message_of(error)

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


def _several(names: str | Collection[str]) -> Collection[str]:
    return [names] if isinstance(names, str) else names


def _as_recorded(path: str, value: object) -> tuple[str, Any]:
    """A value as it stands in the arguments of a typed parameter."""
    from pydantic_core import to_jsonable_python

    found: Any = to_jsonable_python(value)
    if isinstance(found, list | dict):
        raise ValueError(
            f"argument=({path!r}, ...) compares with one value, and was given {value!r}; write a path to it"
        )
    return path, found


def _in_us(at: datetime | None) -> int | None:
    if at is None:
        return None
    return round((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def _entry(row: InstanceSummary) -> InstanceEntry:
    return InstanceEntry(
        id=row.id,
        workflow=row.workflow,
        status=row.status.value,
        reason=row.reason,
        parent_id=row.parent_id,
        created_at=_time(row.created_at_us),
        updated_at=_time(row.updated_at_us),
        ended_at=_time(row.ended_at_us) if row.ended_at_us is not None else None,
    )


def _time(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1_000_000, UTC)


def new_start(
    workflow: Workflow[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    id: str | None,
    environment: Environment,
    payload_bytes_max: int,
    trace: str | None = None,
) -> NewInstance:
    """What is to be stored for a start from outside. Raises what is wrong with the arguments."""
    new = new_instance(workflow, args, kwargs, id=id or f"{workflow.name}-{environment.sortable_id()}")
    check_size(f"the input of workflow {workflow.name}", new.input, limit=payload_bytes_max)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return new._replace(source_hash=_source_hash(workflow), python=python, trace=trace)


def _place(workflow: Workflow[..., Any]) -> str:
    return f"{workflow.function.__module__}.{workflow.function.__qualname__}"


@functools.lru_cache(maxsize=1024)
def source_of(workflow: Workflow[..., Any]) -> Source | None:
    """The text of a workflow, where there is one: shown to people, decides nothing."""
    from edda.visualizer import source

    try:
        text = source.source_of(workflow)
    except (OSError, TypeError, SyntaxError):  # of a notebook, of a program without its text
        return None
    except Exception as error:  # whatever code may look like, no start fails for want of a picture
        log.warning("cannot read the text of workflow %s: %r", workflow.name, error)
        return None
    return Source(workflow.name, hashlib.sha256(text.encode()).hexdigest(), text)


def _source_hash(workflow: Workflow[..., Any]) -> str:
    source = source_of(workflow)
    return source.source_hash if source else ""
