"""One workflow: how its instances end, how long they take, its diagram and its source."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edda.storage.reads import (
    Ending,
    InstanceCount,
    InstanceFilter,
    InstanceSummary,
    Pace,
    Reader,
    Source,
    percentile,
)
from edda.viewer import words
from edda.viewer.asked import Asked
from edda.viewer.instances_page import Errors, errors_of, row_of
from edda.viewer.knowledge import Knowledge
from edda.viewer.statuses import GROUPS
from edda.viewer.workflows_page import ENDINGS_READ, bucket_label, numbers, pace, span_of, spans

LINEAR_UP_TO: Final = 20
"""The longest may be so many times the shortest; beyond that the short ones would not be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    name: str
    counts: tuple[InstanceCount, ...]
    pace: Pace
    endings: tuple[Ending, ...]
    newest: tuple[InstanceSummary, ...]
    failing: tuple[InstanceSummary, ...]
    source: Source | None
    errors: Errors = field(repr=False)
    """Of those that failed."""


async def load(reads: Reader, asked: Asked) -> Facts | None:
    name = asked.exact("name")
    failed = next(statuses for key, _, _, statuses in GROUPS if key == "failed")
    all_counts, source, endings, newest, failing = await asyncio.gather(
        reads.instance_counts(),
        reads.source(name),
        reads.endings(name, limit=ENDINGS_READ),
        reads.instance_page(InstanceFilter(workflows=frozenset({name})), limit=8),
        reads.instance_page(InstanceFilter(workflows=frozenset({name}), statuses=failed), limit=5),
    )
    counts = tuple(count for count in all_counts if count.workflow == name)
    if not counts and source is None:
        return None
    return Facts(
        name=name,
        counts=counts,
        pace=pace(endings, asked, await reads.clock()),
        endings=endings,
        newest=newest.rows,
        failing=failing.rows,
        source=source,
        errors=await errors_of(reads, {row.id: row for row in (*newest.rows, *failing.rows)}.values(), asked),
    )


def view(facts: Facts, asked: Asked, knowledge: Knowledge, *, now_us: int) -> Mapping[str, Any]:
    buckets = facts.pace.buckets
    return {
        "title": facts.name,
        "name": facts.name,
        "spans": spans(asked),
        "span": span_of(asked)[0],
        **numbers(facts.counts, facts.pace, asked, facts.name),
        "axis": [bucket_label(bucket.from_us)[:-4] for bucket in (buckets[0], buckets[len(buckets) // 2], buckets[-1])],
        "durations": durations(facts.endings),
        "newest": [row_of(row, asked, facts.errors, now_us=now_us) for row in facts.newest],
        "failing": [row_of(row, asked, facts.errors, now_us=now_us) for row in facts.failing],
        "instances": asked.to("/instances", workflow=facts.name),
        "source": facts.source,
        "diagram": knowledge.drawing(facts.source, facts.name),
    }


def durations(endings: Sequence[Ending]) -> list[Mapping[str, Any]]:
    """How long instances took: percentiles as bars, on a logarithmic scale where they differ by powers of ten."""
    lengths = sorted(end.ended_at_us - end.created_at_us for end in endings if end.ended_at_us is not None)
    if not lengths:
        return []
    rows = [(f"p{percent}", percentile(lengths, percent) or 0) for percent in (10, 50, 90, 95, 99)] + [
        ("longest", lengths[-1])
    ]
    least, most = max(1, rows[0][1]), max(1, rows[-1][1])
    logarithmic = most > LINEAR_UP_TO * least
    return [
        {
            "label": label,
            "text": words.span(us),
            "width": round(8 + 92 * _log_share(us, least, most) if logarithmic else 100 * us / most, 2),
        }
        for label, us in rows
    ]


def _log_share(value: int, least: int, most: int) -> float:
    bits = max(1, value).bit_length() + max(1, value) / (1 << max(1, value).bit_length())
    low = least.bit_length() + least / (1 << least.bit_length())
    high = most.bit_length() + most / (1 << most.bit_length())
    return min(1.0, max(0.0, (bits - low) / (high - low)))
