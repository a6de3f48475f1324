"""The body of one workflow, running: its loop, the calls it made, and what it asks for now.

A call's id is fixed when it is made; the call is *asked* when it is first awaited. Asking does nothing: the driver
reads `asked` after each drain, answers what history or a live result can answer, one completion at a time, and performs
the rest. This module neither writes nor executes anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from typing import Any, Final, NamedTuple

from edda.activity import Activity
from edda.compensation import compensations
from edda.context import ActivityInfo, NewEvent, WorkflowContext, current_run
from edda.core.commit import NewInstance
from edda.core.history import HistoryEvent, InstanceId
from edda.core.journal import CallKind, Journal, describe_call, describe_event, fits
from edda.core.routing import Criteria
from edda.engine.body_loop import BodyFuture, BodyLoop, Evicted
from edda.engine.body_timers import NEVER_US
from edda.engine.codec import Stored
from edda.engine.event_draft import checked
from edda.engine.payload import check_size
from edda.engine.plans import compensation_codec, plan_of
from edda.engine.starts import new_instance
from edda.exceptions import ForbiddenInBody, NondeterminismError, PayloadTooLargeError, SessionUnavailableError
from edda.workflow import App, StartOptions, Workflow, WorkflowHandle, current_app

WAIT_ID_CHARS_MAX: Final = 255
"""It is in a key, and that is what every database can hold in one."""


class Wish(NamedTuple):
    """The event that a call waits for."""

    criteria: Criteria
    model: Any
    """What its data is to become; None: what JSON says, or bytes."""
    timeout_seconds: float | None


class CallFuture(BodyFuture):
    """What a body awaits for one call. Tells when the body gives the call up."""

    __slots__ = ("abandoned", "call")
    call: Call
    abandoned: list[Call]
    """Where to tell it."""

    def cancel(self, msg: object = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self.abandoned.append(self.call)
        return cancelled


class Call:
    """One durable call of a body."""

    __slots__ = (
        "activity",
        "answered",
        "args",
        "asked",
        "child",
        "due_us",
        "future",
        "id",
        "input",
        "kind",
        "kwargs",
        "name",
        "refused",
        "sent",
        "target",
        "wish",
    )

    def __init__(self, kind: CallKind, call_id: str, name: str) -> None:
        self.kind = kind
        self.id = call_id
        self.name = name
        self.asked = False
        """The body awaits it, or did."""
        self.answered = False
        self.future: CallFuture | None = None
        """What the body awaits, until it is answered: then they let go of each other."""
        self.input: str | None = None
        self.activity: Activity[..., Any] | None = None
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.refused: PayloadTooLargeError | None = None
        """Why nothing will be done for it; recorded, so that it stays so under another limit."""
        self.due_us = 0
        self.child: NewInstance | None = None
        self.sent: tuple[NewEvent, Stored] | None = None
        self.wish: Wish | None = None
        self.target = ""
        """The instance waited for, when it waits for the result of a child."""

    @property
    def waiting(self) -> bool:
        """Asked, and neither answered nor given up by the body."""
        return self.future is not None and not self.future.cancelled()


def _no_claim() -> int:
    return 0


class BodyRun:
    """The `Run` behind the context of a workflow function."""

    def __init__(
        self,
        *,
        instance_id: str,
        workflow: Workflow[..., Any],
        worker_id: str,
        app: App,
        hooks: object | None,
        journal: Journal,
        started_us: int,
        payload_bytes_max: int,
        claim_of: Callable[[], int] = _no_claim,
    ) -> None:
        self.instance_id = instance_id
        self.workflow_name = workflow.name
        self.worker_id = worker_id
        self.loop = BodyLoop(now_us=started_us, seed=zlib.crc32(instance_id.encode()))
        self.calls: dict[str, Call] = {}
        self.asked: list[Call] = []
        """Calls made since the driver last looked, in order."""
        self.abandoned: list[Call] = []
        """Calls whose future the body cancelled since the driver last looked."""
        self.children: dict[str, str] = {}
        """Instance id of each child started so far, and the call that started it."""
        self.new_patches: list[str] = []
        self._workflow = workflow
        self._app = app
        self._hooks = hooks
        self._journal = journal
        self._payload_bytes_max = payload_bytes_max
        self._claim_of = claim_of
        self._counts: dict[str, int] = {}

    def enter(self, input_text: str) -> None:
        """Make the root task; nothing runs before the first drain. Raises what decoding the input raises."""
        args, kwargs = plan_of(self._workflow).signature.decode(input_text)
        context = Context()
        context.run(current_run.set, self)
        context.run(current_app.set, self._app)
        self.loop.start(self._workflow.function(WorkflowContext(self), *args, **kwargs), context=context)

    def forgotten(self) -> list[str]:
        """Ids of the calls that were made and never awaited: nothing was done for them."""
        return [call.id for call in self.calls.values() if not call.asked]

    def evict(self) -> None:
        """Unload the body, and cut what refers to each other: the garbage collector should find nothing to do."""
        self.loop.evict()
        for call in self.calls.values():
            call.future = None

    # -- answering ---------------------------------------------------------------------------------------------------

    def answer(self, event: HistoryEvent, call: Call, value: object, error: BaseException | None) -> None:
        """Deliver one completion. A call that the body gave up hears nothing."""
        future, call.future = call.future, None
        assert future is not None, f"{self.instance_id}: {call.id} is not asked for, or has its answer"
        call.answered = True
        if error is None:
            self.loop.resolve(future, value, at_us=event.at_us)
        else:
            self.loop.reject(future, error, at_us=event.at_us)

    def call_for(self, event: HistoryEvent) -> Call:
        """The call that a recorded completion answers. Raises NondeterminismError where the body made no such call."""
        call = self.calls.get(event.call_id)
        if call is None or not call.asked or call.answered or not fits(event, kind=call.kind, name=call.name):
            raise NondeterminismError(
                instance_id=self.instance_id,
                seq=event.seq,
                recorded=describe_event(event),
                found=self._pending_in_words() if call is None else describe_call(call.kind, call.id, call.name),
            )
        return call

    def _pending_in_words(self) -> str:
        pending = [describe_call(call.kind, call.id, call.name) for call in self.calls.values() if call.waiting]
        pending += [f"timer {timer_id}" for timer_id in self.loop.timers()]
        if self.loop.root.done():
            return "the end of the workflow function"
        return " and ".join(pending) or "no call at all"

    # -- calls -------------------------------------------------------------------------------------------------------

    def _make(self, kind: CallKind, name: str, call_id: str | None) -> Call:
        if call_id is None:
            count = self._counts.get(name, 0) + 1
            while f"{name}:{count}" in self.calls:
                count += 1
            self._counts[name] = count
            call_id = f"{name}:{count}"
        elif call_id in self.calls:
            raise ValueError(
                f"activity_id '{call_id}' was used before in workflow instance '{self.instance_id}': "
                "an id names one call"
            )
        _check_id(kind, call_id)
        call = self.calls[call_id] = Call(kind, call_id, name)
        return call

    def _check_size(self, call: Call, value: Stored | str) -> None:
        try:
            check_size(f"what {call.id} of {self.instance_id} is called with", value, limit=self._payload_bytes_max)
        except PayloadTooLargeError as error:
            call.refused = error

    async def _answer(self, call: Call) -> Any:
        loop = self.loop
        if loop.evicting:
            raise Evicted
        if asyncio.get_running_loop() is not loop:
            raise ForbiddenInBody(what=f"awaiting {call.id} outside its workflow function", where=self.workflow_name)
        future = call.future = loop.future(CallFuture)
        future.call = call
        future.abandoned = self.abandoned
        call.asked = True
        self.asked.append(call)
        return await future

    def activity(
        self, activity: Activity[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, call_id: str | None
    ) -> Coroutine[Any, Any, Any]:
        signature = plan_of(activity).signature
        args, kwargs = signature.bind(args, kwargs)
        text = signature.encode(args, kwargs)
        call = self._make(CallKind.ACTIVITY, activity.name, call_id)
        self._check_size(call, text)
        call.activity = activity
        call.input = text
        call.args = args
        call.kwargs = kwargs
        answer: Any = self._answer(call)
        answer.__qualname__ = call.name  # what Python says was never awaited, if so it is
        return answer  # type: ignore[no-any-return]

    def timer(self, prefix: str, *, due_us: int, timer_id: str | None) -> Coroutine[Any, Any, None]:
        call = self._make(CallKind.TIMER, prefix, timer_id)
        call.due_us = min(due_us, NEVER_US)
        return self._answer(call)

    async def child(
        self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: StartOptions
    ) -> WorkflowHandle[Any]:
        new = new_instance(workflow, args, kwargs)
        call = self._make(CallKind.CHILD_START, workflow.name, None)
        self._check_size(call, new.input)
        child_id = options.id or _child_id(self.instance_id, call.id)
        call.input = new.input
        call.child = new._replace(
            id=InstanceId(child_id), parent_id=InstanceId(self.instance_id), detached=options.detached
        )
        await self._answer(call)
        self.children[child_id] = call.id
        return WorkflowHandle(child_id, self._app)

    def child_result(self, instance_id: str) -> Coroutine[Any, Any, Any]:
        started_by = self.children.get(instance_id)
        if started_by is None:
            raise ForbiddenInBody(
                what=f"waiting for instance '{instance_id}', which is not a child,", where=self.workflow_name
            )
        call = self._make(CallKind.CHILD_RESULT, f"{started_by}.result", None)
        call.target = instance_id
        return self._answer(call)

    def event(
        self, criteria: Criteria, *, model: Any, timeout_seconds: float | None, call_id: str | None
    ) -> Coroutine[Any, Any, Any]:
        call = self._make(CallKind.EVENT_WAIT, criteria.type, call_id)
        if timeout_seconds is not None:
            call.due_us = min(self.loop.now_us + round(timeout_seconds * 1_000_000), NEVER_US)
        call.wish = Wish(criteria, model, timeout_seconds)
        return self._answer(call)

    def send(self, event: NewEvent) -> Coroutine[Any, Any, str]:
        data = checked(event, instance_id=self.instance_id)
        call = self._make(CallKind.EVENT_SEND, event.type, None)
        self._check_size(call, data)
        call.sent = (event, data)
        return self._answer(call)

    def owe(
        self, compensation: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, call_id: str | None
    ) -> Coroutine[Any, Any, None]:
        declared = compensations.get(compensation)
        assert declared is not None, f"{compensation} is registered where it is named"
        text = compensation_codec(declared).encode(args, kwargs)
        call = self._make(CallKind.COMPENSATION, compensation, call_id)
        self._check_size(call, text)
        call.input = text
        return self._answer(call)

    # -- the rest of a context ---------------------------------------------------------------------------------------

    @property
    def replaying(self) -> bool:
        return self._journal.replaying

    @property
    def claim(self) -> int:
        return self._claim_of()

    @property
    def silent(self) -> bool:
        """Also between the last recorded completion and what the body asks for next: it ran to there before the
        completion was recorded."""
        return self.loop.quiet

    @property
    def attempt(self) -> None:
        return None

    @property
    def hooks(self) -> object | None:
        return self._hooks

    @property
    def executed(self) -> set[str]:
        return {call.id for call in self.calls.values() if call.answered and call.kind is CallKind.ACTIVITY}

    @property
    def info(self) -> ActivityInfo:
        raise RuntimeError("ctx.activity is about the running activity; this is the workflow function")

    @property
    def session(self) -> Any:
        raise SessionUnavailableError(
            "ctx.session must be used inside an activity: a workflow function is replayed, and would write again"
        )

    @property
    def in_transaction(self) -> bool:
        return False

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        raise SessionUnavailableError("ctx.transaction() must be used inside an activity")

    def now_us(self) -> int:
        return self.loop.now_us

    def seed(self, purpose: str) -> bytes:
        count = self._counts[f"\0{purpose}"] = self._counts.get(f"\0{purpose}", 0) + 1
        return hashlib.sha256(f"{self.instance_id}\0{purpose}\0{count}".encode()).digest()

    def patched(self, patch_id: str) -> bool:
        if patch_id in self._journal.patches or patch_id in self.new_patches:
            return True
        if self._journal.replaying:
            return False
        self.new_patches.append(patch_id)
        return True


def _check_id(kind: CallKind, call_id: str) -> None:
    """Said at the call, where the code can be seen: a database that refuses it would set the whole instance aside."""
    if not call_id:
        raise ValueError("the id of a call is empty: leave it out, and the call gets one")
    if not call_id.isprintable() and ("\0" in call_id or any("\ud800" <= letter <= "\udfff" for letter in call_id)):
        raise ValueError(f"the id of a call holds neither NUL nor half a character, as {call_id!a} does")
    if kind is CallKind.EVENT_WAIT and len(call_id) > WAIT_ID_CHARS_MAX:
        raise ValueError(
            f"the id of a wait has at most {WAIT_ID_CHARS_MAX} characters, and {call_id[:40]!r}... has {len(call_id)}: "
            "give it a shorter one with event_id=..."
        )


def _child_id(parent: str, call_id: str) -> str:
    child = f"{parent}/{call_id}"
    if len(child) <= 200:
        return child
    return f"{parent[:100]}/{hashlib.sha256(child.encode()).hexdigest()}"
