"""Why an instance failed, by which calls, and what was undone of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from edda.core.history import HistoryEvent, Kind
from edda.core.lifecycle import Status
from edda.viewer.asked import Asked
from edda.viewer.failure import Failure, failure_of
from edda.viewer.instance_facts import Facts
from edda.viewer.timeline import Lane, Outcome, Sort


def why_it_failed(facts: Facts) -> Failure | None:
    """Why it failed, with the stack trace of the call that raised it: its own ends where the function waits for it."""
    failure, raised = failure_of(facts.row.error), _raised(facts)
    if failure is None or raised is None:
        return failure
    at_the_call = failure_of(raised.output)
    return replace(failure, stack_trace=at_the_call.stack_trace or failure.stack_trace) if at_the_call else failure


def _raised(facts: Facts) -> HistoryEvent | None:
    """The last call that ended with the error of the instance."""
    error = failure_of(facts.row.error)
    return next((event for event in reversed(facts.history) if event.call_id and _ends_with(event, error)), None)


def failed_calls(facts: Facts, lanes: Sequence[Lane], asked: Asked) -> list[Mapping[str, Any]]:
    """The calls by which it failed: compensations that could not undo, or the last one that ended with its error."""
    if facts.row.status is Status.COMPENSATION_FAILED:
        found = [lane.call_id for lane in lanes if lane.sort is Sort.COMPENSATION and lane.outcome is Outcome.FAILED]
    else:
        raised = _raised(facts)
        found = [raised.call_id] if raised else []
    return [{"id": call_id, "href": asked.changed(call=call_id)} for call_id in found]


def _ends_with(event: HistoryEvent, error: Failure | None) -> bool:
    if error is None or event.kind not in _FAILING:
        return False
    found = failure_of(event.output)
    return found is not None and (found.type, found.message) == (error.type, error.message)


_FAILING: Final = frozenset({Kind.ACTIVITY_FAILED, Kind.CHILD_FAILED, Kind.CHILD_CANCELLED, Kind.EVENT_TIMED_OUT})


def undoing(lanes: Sequence[Lane]) -> str:
    """What became of the compensations; empty where there were none."""
    compensations = [lane for lane in lanes if lane.sort is Sort.COMPENSATION]
    undone = sum(lane.outcome is Outcome.UNDONE for lane in compensations)
    failed = sum(lane.outcome is Outcome.FAILED for lane in compensations)
    if failed:
        return f"{failed} of {len(compensations)} could not be undone"
    return f"{undone} of {len(compensations)} undone" if compensations else ""
