"""The list of instances: what is asked, what is found, and how it is shown. It must not know HTTP or SQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edda.core.history import InstanceId
from edda.core.lifecycle import Status
from edda.storage.reads import InstanceCount, InstanceFilter, InstanceSummary, Page, Reader
from edda.viewer import words
from edda.viewer.asked import Asked, argument_of, instance_path, moment_us
from edda.viewer.failure import failure_of
from edda.viewer.knowledge import Knowledge
from edda.viewer.statuses import GROUPS, chosen, look_now

SINCE: Final[Mapping[str, tuple[str, int]]] = {
    "15min": ("Last 15 minutes", 15 * words.MINUTE_US),
    "hour": ("Last hour", words.HOUR_US),
    "day": ("Last 24 hours", words.DAY_US),
    "week": ("Last 7 days", 7 * words.DAY_US),
}
SINCE_STEP_US: Final = words.MINUTE_US
"""The beginning of "the last hour" moves in steps, so that a list in which nothing happens stays the same."""

REASON_MAX: Final = 160
"""Characters of why an instance stands where it stands, in a list."""
WITH_ERROR: Final = frozenset({Status.FAILED, Status.COMPENSATION_FAILED})

Errors = Mapping[InstanceId, str]
"""Why instances failed, in one line each."""

template: Final = "instances.html"
title: Final = "Instances"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    found: Page[InstanceSummary]
    counts: tuple[InstanceCount, ...]
    errors: Errors = field(repr=False)
    """Settled by the rows: an instance that fails again has ended at another time."""


async def load(reads: Reader, asked: Asked) -> Facts:
    which = filter_of(asked, now_us=await reads.clock())
    found, counts = await asyncio.gather(
        reads.instance_page(which, page=asked.word("page") or None), reads.instance_counts()
    )
    return Facts(found=found, counts=counts, errors=await errors_of(reads, found.rows, asked))


async def errors_of(reads: Reader, rows: Iterable[InstanceSummary], asked: Asked) -> Errors:
    """Of those that failed, asked for in one go. Whoever only wants a mark does without."""
    failed = [row.id for row in rows if row.status in WITH_ERROR]
    if asked.only_mark or not failed:
        return {}
    found = {instance_id: failure_of(error) for instance_id, error in (await reads.errors(failed)).items()}
    return {instance_id: words.end_cut(failure.line, REASON_MAX) for instance_id, failure in found.items() if failure}


def filter_of(asked: Asked, *, now_us: int) -> InstanceFilter:
    workflow = asked.word("workflow")
    from_us = moment_us(asked.word("from"))
    if asked.word("since") in SINCE:
        from_us = (now_us - SINCE[asked.word("since")][1]) // SINCE_STEP_US * SINCE_STEP_US
    return InstanceFilter(
        statuses=chosen(asked.word("status")),
        workflows=frozenset({workflow} if workflow else ()),
        id_prefix=asked.word("id"),
        parent_id=asked.word("parent"),
        created_from_us=from_us,
        created_before_us=moment_us(asked.word("before")),
        text=asked.word("text"),
        argument=argument_of(asked.word("input")),
    )


def view(facts: Facts, asked: Asked, _: Knowledge, *, now_us: int) -> Mapping[str, Any]:
    filters = ("status", "workflow", "id", "input", "since", "from", "before", "text", "parent")
    used = {name: asked.word(name) for name in filters}
    return {
        "rows": [row_of(row, asked, facts.errors, now_us=now_us) for row in facts.found.rows],
        "older": asked.changed(page=facts.found.next_page) if facts.found.next_page else None,
        "newest": asked.changed(page=None) if asked.word("page") else None,
        "scanned_all": facts.found.scanned_all,
        "chips": chips_of(facts.counts, asked),
        "workflows": sorted({count.workflow for count in facts.counts}),
        "since": [(key, label) for key, (label, _) in SINCE.items()],
        "used": used,
        "wanted": wanted(used),
        "filtered": any(used.values()),
        "more_open": any(used[name] for name in ("from", "before", "text", "parent")),
        "nothing_yet": not facts.counts,
        "reset": asked.to("/instances"),
    }


def wanted(used: Mapping[str, str]) -> list[tuple[str, str]]:
    """What was asked for, in words, beside the value of each."""
    labels = {
        "status": "status",
        "workflow": "workflow",
        "id": "id begins with",
        "input": "input field",
        "since": "started within",
        "from": "started from",
        "before": "started before",
        "text": "text",
        "parent": "parent",
    }
    values = {**used, "since": SINCE[used["since"]][0].lower() if used["since"] in SINCE else ""}
    return [(label, words.end_cut(values[name], 60)) for name, label in labels.items() if values[name]]


def row_of(row: InstanceSummary, asked: Asked, errors: Errors, *, now_us: int) -> Mapping[str, Any]:
    ended = row.ended_at_us is not None
    return {
        "id": row.id,
        "id_short": words.middle_cut(row.id, 44),
        "href": asked.to(instance_path(row.id)),
        "workflow": row.workflow,
        "look": look_now(row.status, reason=row.reason, owned=row.owner is not None),
        "cancelling": row.cancel_requested_at_us is not None and not ended,
        "started": words.moment(row.created_at_us, now_us=now_us),
        "span": words.span((row.ended_at_us or now_us) - row.created_at_us),
        "ticking": not ended,
        "reason": words.end_cut(reason_of(row), REASON_MAX),
        "error": errors.get(row.id, ""),
        "due": None if row.claimable_at_us is None or ended else words.moment(row.claimable_at_us, now_us=now_us),
    }


def reason_of(row: InstanceSummary) -> str:
    """What it waits for, without what its status says already."""
    if row.ended_at_us is None and row.owner is None and row.status is Status.RUNNING and not row.reason:
        return "waits for a worker"
    return row.reason.removeprefix("event ").removeprefix("timer ")


def chips_of(counts: Sequence[InstanceCount], asked: Asked) -> list[Mapping[str, Any]]:
    """How many there are of each group of statuses, each a link; of the chosen workflow, if one is."""
    workflow = asked.word("workflow")
    counted = [count for count in counts if not workflow or count.workflow == workflow]
    chips = [_chip("", "All", "all", counted, asked)]
    for name, label, tone, statuses in GROUPS:
        mine = [count for count in counted if count.status in statuses]
        if mine or name in ("running", "waiting", "completed", "failed"):
            chips.append(_chip(name, label, tone, mine, asked))
    return chips


def _chip(name: str, label: str, tone: str, counts: Sequence[InstanceCount], asked: Asked) -> Mapping[str, Any]:
    return {
        "label": label,
        "tone": tone,
        "count": words.count(sum(count.count for count in counts), capped=any(count.capped for count in counts)),
        "href": asked.changed(status=name or None, page=None),
        "chosen": asked.word("status") == name,
    }
