"""What an app does with events: taking them in, sending them, and what they start here. Part of `EddaApp`."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from edda.callbacks import CALLBACK_TYPE, answer_to
from edda.context import NewEvent
from edda.core.event import JSON_TYPE, CloudEvent, Receipt
from edda.core.history import InstanceId
from edda.core.subscription import ALL, WHOLE, Subscription
from edda.engine.codec import encode_event_data
from edda.engine.engine import Engine
from edda.engine.event_draft import BYTES_TYPE, EventDraft, checked
from edda.engine.payload import check_size
from edda.events import ReceivedEvent, event_name
from edda.exceptions import (
    DeadLetterNotFoundError,
    InstanceEndedError,
    InstanceNotFoundError,
)
from edda.handlers import check_handler, handler_workflow
from edda.naming import NameTakenError
from edda.outbox.dead_letter import DeadLetter, dead_letter_of
from edda.outbox.relayer import Relayer
from edda.retry import RetryPolicy
from edda.workflow import (
    Workflow,
)

T = TypeVar("T")


class AppEvents:
    """Needs of the app: its engine, its workflows, and whether there is a broker."""

    broker_url: str | None
    _max_payload_bytes: int
    _workflows: dict[str, Workflow[..., Any]] | None
    _handlers: dict[str, str]
    _relayer: Relayer | None

    async def _ready(self) -> Engine:
        raise NotImplementedError

    def _current_trace(self) -> str | None:
        raise NotImplementedError

    def _registered(self) -> Mapping[str, Workflow[..., Any]]:
        raise NotImplementedError

    def _hint_relayer(self) -> None:
        raise NotImplementedError

    def on_event(
        self,
        event_type: str,
        proto_type: type[Any] | None = None,
        *,
        name: str | None = None,
        retry_policy: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> Callable[[Callable[[ReceivedEvent], T]], Callable[[ReceivedEvent], T]]:
        """Call a function for every event of this type: `@app.on_event("order.paid")`, `async def paid(event): ...`.

        Durably: the event is stored first, then the function runs as an activity of an instance of its own, which is
        named after the event: once for an event, retried by `retry_policy`, and a failed instance if it fails for good.
        A plain `def` runs in a thread. `name` is what history knows it by, by default the type and the function's name.
        `proto_type` is accepted for code written for the reference, and has no meaning.
        """

        event_type = event_name("event_type", event_type)

        def declare(function: Callable[[ReceivedEvent], T]) -> Callable[[ReceivedEvent], T]:
            check_handler(event_type, function)
            declared = handler_workflow(event_type, function, name=name, retry_policy=retry_policy, timeout=timeout)
            if (other := self._handlers.get(declared.name, event_type)) != event_type:
                raise NameTakenError(
                    f"the handler '{declared.name}' is called for events of type '{other}' already, and history knows "
                    f"it by that name only. Give the one for '{event_type}' another: @app.on_event(..., name=\"...\")."
                )
            if self._workflows is not None:
                self._workflows[declared.name] = declared
            self._handlers[declared.name] = event_type
            return function

        return declare

    def _subscriptions(self) -> frozenset[Subscription]:
        """What events start here: the handlers, and workflows that are named after their event."""
        handlers = {Subscription(event_type, name, WHOLE) for name, event_type in self._handlers.items()}
        return frozenset(handlers) | {
            Subscription(name, name, _taken(workflow))
            for name, workflow in self._registered().items()
            if workflow.event_handler
        }

    def direct(self, event: NewEvent) -> NewEvent:
        """With a broker events go there, through the outbox; without one to our own inbox."""
        return event if event.to_outbox or self.broker_url is None else replace(event, to_outbox=True)

    async def send(self, event: NewEvent) -> str:
        """What `send_event` does outside of workflows and activities."""
        engine = await self._ready()
        data, event_id = checked(event), str(UUID(hex=engine.environment.sortable_id()))
        check_size(f"event '{event.type}'", data, limit=self._max_payload_bytes)
        draft = EventDraft(event_id, self.direct(event), data, self._current_trace())
        if draft.event.to_outbox:
            # Of no instance: it waits for nobody, and nobody for it.
            message = draft.message(
                instance_id=InstanceId(f"event/{draft.id}"), seq=1, ordinal=0, at_us=engine.environment.wall_us()
            )
            await engine.store.enqueue([message])
            self._hint_relayer()
            if self._relayer is None:
                engine.store.hint()
            return draft.id
        await self._accept_one(draft.for_inbox(at_us=engine.environment.wall_us()))
        return draft.id

    async def complete(self, token: str, data: Any = None) -> bool:
        """Answer a callback, whose `token` somebody was given (see `ctx.callback`). False: it was answered before.

        Raises InstanceNotFoundError or InstanceEndedError where nobody waits for it any more, ValueError for what is
        no token, or one that the instance never gave out.
        """
        stored = encode_event_data(data)
        check_size("the answer", stored, limit=self._max_payload_bytes)
        content_type = JSON_TYPE if stored.blob is None else BYTES_TYPE
        answer = answer_to(token, json=stored.text, blob=stored.blob, content_type=content_type)
        try:
            return await self._accept_one(answer) is Receipt.STORED
        except InstanceNotFoundError:
            engine = await self._ready()
            if await engine.store.instance(InstanceId(answer.target or "")) is None:
                raise
            raise ValueError("this is not the token of a callback") from None

    async def _accept_one(self, event: CloudEvent) -> Receipt:
        (receipt,) = await self.accept([event])
        if receipt is Receipt.NO_SUCH_INSTANCE:
            raise InstanceNotFoundError(event.target or "")
        if receipt is Receipt.INSTANCE_ENDED:
            raise InstanceEndedError(event.target or "")
        return receipt

    async def accept(self, events: Sequence[CloudEvent]) -> Sequence[Receipt]:
        """Store events that came from anywhere; durable when it returns what became of each.

        An answer to a callback that was never made is refused, or whoever knows an instance's id could fill its inbox.
        """
        engine = await self._ready()
        forged = [place for place, event in enumerate(events) if not await _was_asked_for(engine, event)]
        if not forged:
            return await engine.inbox.accept(events)
        receipts = list(await engine.inbox.accept([event for at, event in enumerate(events) if at not in forged]))
        for place in forged:
            receipts.insert(place, Receipt.NO_SUCH_INSTANCE)
        return receipts

    async def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Events that the receiver refused for good, the latest first. They stay until they are requeued."""
        engine = await self._ready()
        return [dead_letter_of(stored) for stored in await engine.store.dead_letters(limit=limit)]

    async def requeue(self, event_id: str) -> None:
        """Have a dead letter delivered after all, under its old id; what was sent after it may be there already."""
        engine = await self._ready()
        if not await engine.store.requeue(event_id):
            raise DeadLetterNotFoundError(event_id)
        self._hint_relayer()


async def _was_asked_for(engine: Engine, event: CloudEvent) -> bool:
    """Of an answer to a callback: whether its token stands in the history of the instance that it names."""
    if event.type != CALLBACK_TYPE:
        return True
    return await engine.store.has_result(InstanceId(event.target or ""), json.dumps(event.subject))


@functools.lru_cache(maxsize=1024)
def _taken(workflow: Workflow[..., Any]) -> str:
    """Which members of an event's data a workflow takes as arguments."""
    parameters = list(inspect.signature(workflow.function).parameters.values())[1:]
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return ALL
    return "".join(f"{parameter.name}," for parameter in parameters)
