"""One call of an instance: what went in, what came out, each attempt, and where to go from here. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edda.core.history import HistoryEvent, Kind
from edda.viewer import words
from edda.viewer.asked import Asked, instance_path
from edda.viewer.failure import failure_of
from edda.viewer.instance_facts import Facts
from edda.viewer.instance_timeline import busy_us, outcome_words
from edda.viewer.knowledge import Knowledge
from edda.viewer.timeline import Lane, Outcome, Sort, details_of
from edda.viewer.values import Shown, shown, shown_arguments


def call_panel(
    facts: Facts, lanes: Sequence[Lane], chosen: str, asked: Asked, knowledge: Knowledge, *, now_us: int
) -> Mapping[str, Any] | None:
    """Everything about one call; None where this window knows nothing of it."""
    events = [event for event in facts.history if event.call_id == chosen]
    place = next((place for place, lane in enumerate(lanes) if lane.call_id == chosen), None)
    if place is None:
        return None
    lane = lanes[place]
    last = events[-1] if events else None
    names = knowledge.parameters(facts.source, lane.name)
    others = [other for other in lanes if other.name == lane.name and other.sort is lane.sort]
    undo = next((other for other in lanes if other.undoes == chosen and other.call_id), None)
    return {
        "id": chosen,
        "name": lane.name,
        "sort": SORT_WORDS[lane.sort],
        "outcome": lane.outcome.value,
        "outcome_words": outcome_words(lane),
        "close": asked.changed(call=None),
        "before": _link(lanes[:place][-1:], asked),
        "after": _link(lanes[place + 1 :][:1], asked),
        "began": words.moment(lane.from_us, now_us=now_us),
        "about": lane.stretches[0].about,
        "took": words.span(busy_us(lane)),
        "going_on": lane.stretches[-1].open,
        "input": shown_arguments(next((event.input for event in events if event.input), None), names),
        "output": _output(last),
        "failure": failure_of(last.output) if last is not None and lane.outcome is Outcome.FAILED else None,
        "attributes": _attributes(last),
        "attempts": _attempts(events, lane, now_us=now_us),
        "executions": [
            {"id": other.call_id, "href": asked.changed(call=other.call_id), "outcome": other.outcome.value}
            for other in others[:40]
        ]
        if len(others) > 1
        else [],
        "undo": {"id": undo.call_id, "href": asked.changed(call=undo.call_id), "name": undo.name} if undo else None,
        "undoes": {"id": lane.undoes, "href": asked.changed(call=lane.undoes)} if lane.undoes else None,
        "goes_to": {"id": lane.goes_to, "href": asked.to(instance_path(lane.goes_to))} if lane.goes_to else None,
        "raw": {
            part: asked.to("/value", id=facts.row.id, part=part, seq=event.seq)
            for part, event in (("input", next((e for e in events if e.input), None)), ("output", last))
            if event is not None
        },
    }


def _link(lanes: Sequence[Lane], asked: Asked) -> Mapping[str, str] | None:
    """To the call of the first of these lanes, if it has one."""
    return (
        {"id": lanes[0].call_id, "href": asked.changed(call=lanes[0].call_id)} if lanes and lanes[0].call_id else None
    )


SORT_WORDS: Final = {
    Sort.ACTIVITY: "Activity",
    Sort.EVENT: "Wait for an event",
    Sort.TIMER: "Timer",
    Sort.CHILD: "Child workflow",
    Sort.SENT: "Event sent",
    Sort.COMPENSATION: "Compensation",
    Sort.OTHER: "Step",
}

_WITH_OUTPUT: Final = frozenset(
    {Kind.ACTIVITY_COMPLETED, Kind.EVENT_RECEIVED, Kind.CHILD_COMPLETED, Kind.COMPENSATION_EXECUTED}
)


def _output(event: HistoryEvent | None) -> Shown | None:
    """What a call gave; nothing where it gave nothing."""
    if event is None or event.kind not in _WITH_OUTPUT or event.output == "null":
        return None
    return shown(event.output, event.blob)


_ATTRIBUTES: Final = ("id", "source", "subject", "time", "datacontenttype", "timeout_seconds", "unstorable")


def _attributes(event: HistoryEvent | None) -> list[tuple[str, str]]:
    """What else is known, of an event above all."""
    details = details_of(event) if event is not None else {}
    return [(name, str(details[name])) for name in _ATTRIBUTES if name in details]


def _attempts(events: Sequence[HistoryEvent], lane: Lane, *, now_us: int) -> list[Mapping[str, Any]]:
    """Each attempt with what it took, how it ended, and what was waited for after it."""
    if lane.sort not in (Sort.ACTIVITY, Sort.COMPENSATION) or not lane.failures:
        return []
    found: list[Mapping[str, Any]] = []
    for stretch in lane.stretches:
        if stretch.kind == "backoff":
            found[-1] = {**found[-1], "then": f"the next after {words.span(stretch.length_us)}"}
            continue
        failed = [event for event in events if "Failed" in event.kind]
        number = len(found)
        failure = failure_of(failed[number].output) if stretch.kind == "failed" and number < len(failed) else None
        found.append(
            {
                "number": number + 1,
                "outcome": "running" if stretch.open else {"failed": "failed"}.get(stretch.kind, "completed"),
                "began": words.moment(stretch.from_us, now_us=now_us),
                "took": words.span(stretch.length_us),
                "failure": failure,
                "then": "",
            }
        )
    return found if len(found) > 1 else []
