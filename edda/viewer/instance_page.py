"""One instance: why it stands where it stands, what went in and came out, when everything happened, and each call.

It must not know HTTP, SQL or how pictures are drawn. The timeline and the calls are those of the window of history that
is shown; `instance_…` are the parts of the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edda.core.lifecycle import CANCELLABLE, ENDED, REPAIRABLE, Status
from edda.storage.reads import InstanceSummary, OutboxView
from edda.viewer import words
from edda.viewer.asked import Asked, instance_path
from edda.viewer.instance_call import call_panel
from edda.viewer.instance_facts import Facts, load
from edda.viewer.instance_failure import failed_calls, undoing, why_it_failed
from edda.viewer.instance_history import ROWS_SHOWN, entries, window_links
from edda.viewer.instance_timeline import timeline
from edda.viewer.instances_page import row_of
from edda.viewer.knowledge import Knowledge
from edda.viewer.statuses import GROUPS, look_now
from edda.viewer.timeline import Lane, Now, lanes_of, scale_of
from edda.viewer.values import shown, shown_arguments
from edda.why import Answer, Situation

__all__ = ["load", "view"]

template: Final = "instance.html"
LANES_MAX: Final = 300
REFRESH_SECONDS: Final = 5
"""So often an instance that goes on is drawn again though nothing was written: its bars grow."""


def view(facts: Facts, asked: Asked, knowledge: Knowledge, *, now_us: int) -> Mapping[str, Any]:
    row = facts.row
    lanes = lanes_of(facts.history, _now(facts, now_us))
    scale = scale_of(lanes, from_us=_first_us(facts), until_us=row.ended_at_us or _last_us(facts, lanes))
    chosen = asked.exact("call")
    diagram = knowledge.drawing(
        facts.source, row.workflow, history=facts.history, status=row.status.value, waits=facts.waits
    )
    names = knowledge.parameters(facts.source, row.workflow)
    return {
        "title": row.id,
        "id": row.id,
        "workflow": row.workflow,
        "workflow_href": asked.to("/workflows/one", name=row.workflow),
        "look": look_now(row.status, reason=row.reason, owned=row.owner is not None),
        "why": None if row.status in ENDED else _sentence(knowledge.why(_situation(facts, now_us))),
        "refresh_seconds": 0 if row.status in ENDED else REFRESH_SECONDS,
        "cancelling": row.cancel_requested_at_us is not None and row.status not in ENDED,
        "facts": _facts_list(facts, asked, now_us=now_us),
        "input": shown_arguments(row.input, names),
        "completed": row.status is Status.COMPLETED,
        "output": shown(row.output, row.blob) if row.status is Status.COMPLETED else None,
        "failure": why_it_failed(facts),
        "failed_calls": failed_calls(facts, lanes, asked),
        "undoing": undoing(lanes),
        "timeline": timeline(
            lanes[:LANES_MAX], scale, asked, chosen=chosen, running=diagram.running if diagram else (), now_us=now_us
        ),
        "lanes_left": max(0, len(lanes) - LANES_MAX),
        "call": call_panel(facts, lanes, chosen, asked, knowledge, now_us=now_us) if chosen else None,
        "diagram": diagram,
        "other_source": bool(facts.source and row.source_hash and facts.source.source_hash != row.source_hash),
        "children": [row_of(child, asked, facts.errors, now_us=now_us) for child in facts.children],
        "children_words": _children_words(facts.children),
        "sent": [_sent(message, now_us=now_us) for message in facts.sent],
        "history": entries(facts, asked, chosen=chosen, now_us=now_us),
        "history_left": max(0, len(facts.history) - ROWS_SHOWN),
        "window": window_links(facts, asked),
        "raw": {part: asked.to("/value", id=row.id, part=part) for part in ("input", "output")},
        "may": {
            "cancel": row.status in CANCELLABLE,
            "retry": row.status in REPAIRABLE,
            "send": row.status not in ENDED,
        },
        "waits_for": [wait.type for wait in facts.waits],
    }


def _now(facts: Facts, now_us: int) -> Now:
    row = facts.row
    return Now(
        now_us=now_us,
        status=row.status,
        owned=row.owner is not None,
        since_us=row.updated_at_us,
        due_us=row.claimable_at_us,
        reason=row.reason,
        waits=tuple((wait.call_id, wait.type) for wait in facts.waits),
    )


def _situation(facts: Facts, now_us: int) -> Situation:
    return Situation(
        now_us=now_us, row=facts.row, history=facts.history, workers=facts.workers, children=facts.waited_for
    )


def _sentence(answer: Answer) -> Answer:
    """As it stands alone on a page."""
    return Answer(sentence=answer.sentence[:1].upper() + answer.sentence[1:] + ".", advice=answer.advice)


def _first_us(facts: Facts) -> int:
    begins_here = bool(facts.history) and facts.history[0].seq == 1
    return facts.row.created_at_us if begins_here or not facts.history else facts.history[0].at_us


def _last_us(facts: Facts, lanes: Sequence[Lane]) -> int:
    return max([facts.row.updated_at_us, *(event.at_us for event in facts.history), *(lane.until_us for lane in lanes)])


# -- facts ------------------------------------------------------------------------------------------------------------


def _facts_list(facts: Facts, asked: Asked, *, now_us: int) -> list[Mapping[str, Any]]:
    row = facts.row
    found: list[Mapping[str, Any]] = [{"name": "Started", "moment": words.moment(row.created_at_us, now_us=now_us)}]
    if row.ended_at_us is not None:
        found.append({"name": "Ended", "moment": words.moment(row.ended_at_us, now_us=now_us)})
    found.append(
        {
            "name": "Took" if row.ended_at_us is not None else "So far",
            "text": words.span((row.ended_at_us or now_us) - row.created_at_us),
        }
    )
    if row.owner is not None:
        found.append({"name": "Worker", "text": row.owner, "href": asked.to("/workers")})
    elif row.ended_at_us is None and row.claimable_at_us is not None and row.claimable_at_us > now_us:
        name = "Times out" if row.status is Status.WAITING_FOR_EVENT else "Goes on"
        found.append({"name": name, "moment": words.moment(row.claimable_at_us, now_us=now_us)})
    if row.claim > 1:
        found.append({"name": "Taken up by a worker", "text": f"{row.claim:,} times"})
    if row.crashes:
        found.append({"name": "Crashes", "text": f"{row.crashes} without progress"})
    if row.cancel_requested_at_us is not None:
        found.append(
            {
                "name": "Cancel asked",
                "moment": words.moment(row.cancel_requested_at_us, now_us=now_us),
                "note": f"by {row.cancelled_by}" if row.cancelled_by else "",
            }
        )
    if row.parent_id:
        found.append({"name": "Parent", "text": row.parent_id, "href": asked.to(instance_path(row.parent_id))})
    return found


def _children_words(children: Sequence[InstanceSummary]) -> str:
    """How many there are of each group: `1 waiting, 1 failed`."""
    counted = [(sum(child.status in statuses for child in children), label) for _, label, _, statuses in GROUPS]
    return ", ".join(f"{many} {label.lower()}" for many, label in counted if many)


def _sent(found: OutboxView, *, now_us: int) -> Mapping[str, Any]:
    return {
        "type": found.message.type,
        "id": found.message.id,
        "status": found.status,
        "at": words.moment(found.message.at_us, now_us=now_us),
        "attempts": found.attempts,
        "reason": found.reason or "",
        "data": shown(found.message.data, found.message.blob),
    }
