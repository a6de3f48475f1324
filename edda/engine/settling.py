"""The phase after the workflow function: attempts that it left behind come to their end, then the instance concludes.

It ends here, or, where something is owed, turns to undoing.
"""

from __future__ import annotations

from edda.core.commit import End, RowChange, Undo
from edda.core.history import InstanceId, Kind
from edda.core.lifecycle import LAST_EVENT, Status
from edda.core.saga import owed
from edda.engine.attempts import Outcome
from edda.engine.codec import encode_error
from edda.engine.instance import Instance
from edda.engine.payload import check_size
from edda.engine.phases import STEP, Pause, Phase, Write
from edda.engine.plans import plan_of
from edda.engine.records import record_success, record_unknown
from edda.engine.replies import Reply
from edda.exceptions import SerializationError, WorkflowCancelledException


class SettlingPhase:
    """`result` is what the workflow function returned or raised; `cause` how the instance ends if it did not
    complete."""

    def __init__(self, instance: Instance, result: Reply, *, cause: Status) -> None:
        instance.journal.close()
        self._instance = instance
        self.result = result
        self._cause = cause
        self.patience_seconds = instance.steps.abandon()
        """How long the driver lets attempts end that cannot be interrupted."""

    @classmethod
    def cancelling(cls, instance: Instance) -> SettlingPhase:
        """A cancel was accepted. What a dead worker may have begun, and did not record, has an unknown effect."""
        instance.journal.close()
        if instance.row.crashes:
            for step in instance.steps:
                if step.attempt is None:
                    record_unknown(instance, instance.calls[step.call_id])
        error = WorkflowCancelledException(instance_id=instance.id)
        return cls(instance, Reply(error=error), cause=Status.CANCELLED)

    # -- the phase ---------------------------------------------------------------------------------------------------

    def pump(self) -> Write | Pause | Phase:
        arrived = self._instance.arrived
        while arrived:
            arrival = arrived.popleft()
            if isinstance(arrival, Outcome):
                self._settle(arrival)
        if self._instance.steps.running:
            return Write() if self._instance.draft.records else Pause.PROCEED
        return self._conclude()

    def stop_waiting(self) -> None:
        """Patience is over: nobody will know what these attempts did."""
        for step in self._instance.steps.stop_waiting():
            record_unknown(self._instance, self._instance.calls[step.call_id])

    def _settle(self, outcome: Outcome) -> None:
        """An attempt that the body left behind: only a success, or a doubt, is worth a record."""
        instance = self._instance
        step = instance.steps.outcome_taken(outcome.order.call_id)
        if step is None:
            return
        instance.steps.remove(step.call_id)
        if outcome.error is not None or outcome.recorded is not None:
            return
        if not outcome.interrupted:
            record_success(instance, step, outcome)
        elif self._cause is Status.CANCELLED:
            record_unknown(instance, instance.calls[step.call_id])

    def _conclude(self) -> Write:
        if self.result.error is None:
            try:
                return self._complete()
            except SerializationError as unstorable:
                self.result = Reply(error=unstorable)
        error = self.result.error
        assert error is not None
        if self._instance.draft.children:
            # What a commit creates, it cannot cancel: these have to be there first.
            return STEP
        events = self._instance.journal.events
        if isinstance(error, WorkflowCancelledException) and self._cause is Status.CANCELLED:
            error.unknown = tuple(event.call_id for event in events if event.kind == Kind.ACTIVITY_UNKNOWN)
        text = encode_error(error)
        record, name, at_us = self._instance.draft.record, self._instance.workflow.name, self._instance.now_us()
        cancelling = self._cause is Status.CANCELLED
        if owed(events):
            record(Kind.COMPENSATION_STARTED, at_us=at_us, name=name, output=text, meta={"cause": self._cause})
            return Write(row=Undo(for_cancel=cancelling), cancels=children_to_cancel(self._instance))
        record(LAST_EVENT[self._cause], at_us=at_us, name=name, output=text)
        return Write(
            row=End(status=self._cause, error=text, unless_cancelled=not cancelling),
            wakes=parent_of(self._instance),
            cancels=children_to_cancel(self._instance),
        )

    def _complete(self) -> Write:
        instance = self._instance
        stored = plan_of(instance.workflow).signature.result.encode(self.result.value)
        check_size(f"the result of workflow instance {instance.id}", stored, limit=instance.house.payload_bytes_max)
        instance.draft.record(
            Kind.WORKFLOW_COMPLETED,
            at_us=instance.now_us(),
            name=instance.workflow.name,
            output=stored.text,
            blob=stored.blob,
        )
        end = End(status=Status.COMPLETED, output=stored.text, blob=stored.blob, unless_cancelled=True)
        return Write(row=end, wakes=parent_of(instance))

    # -- nothing to wait for but attempts ----------------------------------------------------------------------------

    def collect_due(self, now_us: int) -> bool:
        return False

    def earliest_due_us(self) -> int | None:
        return None

    @property
    def looking(self) -> bool:
        return False

    def when_idle(self, due_us: int | None) -> RowChange:
        raise AssertionError(f"{self._instance.id}: settling without a running attempt concludes")

    def evict(self) -> None:
        pass


def parent_of(instance: Instance) -> tuple[InstanceId, ...]:
    """Whom to wake when it ends."""
    return (instance.row.parent_id,) if instance.row.parent_id is not None else ()


def children_to_cancel(instance: Instance) -> tuple[InstanceId, ...]:
    """The children that it started and that were not told to survive it."""
    children: list[InstanceId] = []
    for event in instance.journal.events:
        if event.kind == Kind.CHILD_STARTED:
            details = event.details()
            if not details["detached"]:
                children.append(InstanceId(details["instance_id"]))
    return tuple(children)
