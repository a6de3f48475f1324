"""Workflows: how many instances of each there are, how they end, how long they take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from edda.core.lifecycle import ENDED
from edda.storage.reads import (
    Ending,
    InstanceCount,
    Pace,
    Reader,
    pace_of,
)
from edda.viewer import plots, words
from edda.viewer.asked import Asked
from edda.viewer.knowledge import Knowledge
from edda.viewer.statuses import GROUPS

ENDINGS_READ: Final = 2_000
"""Newest instances of a workflow that are measured; of each of many, fewer."""
ENDINGS_OF_ALL: Final = 6_000
"""As many for all workflows of a page together."""
WORKFLOWS_SHOWN: Final = 40
SPANS: Final[Mapping[str, tuple[str, int, int]]] = {
    "hour": ("the last hour", words.HOUR_US, 5 * words.MINUTE_US // 2),
    "day": ("the last 24 hours", words.DAY_US, words.HOUR_US),
    "week": ("the last 7 days", 7 * words.DAY_US, 6 * words.HOUR_US),
}
"""The word in the address, its name, its length, and the width of one bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    counts: tuple[InstanceCount, ...]
    paces: tuple[tuple[str, Pace], ...]
    left: int
    """Workflows that are not shown."""


async def load(reads: Reader, asked: Asked) -> Facts:
    counts = await reads.instance_counts()
    names = sorted({count.workflow for count in counts})
    now_us = await reads.clock()
    shown = names[:WORKFLOWS_SHOWN]
    limit = min(ENDINGS_READ, ENDINGS_OF_ALL // max(1, len(shown)))
    endings = await asyncio.gather(*(reads.endings(name, limit=limit) for name in shown))
    paces = [(name, pace(some, asked, now_us, limit=limit)) for name, some in zip(shown, endings, strict=True)]
    return Facts(counts=counts, paces=tuple(paces), left=max(0, len(names) - WORKFLOWS_SHOWN))


def pace(endings: Sequence[Ending], asked: Asked, now_us: int, *, limit: int = ENDINGS_READ) -> Pace:
    _, span_us, bucket_us = span_of(asked)
    until_us = now_us // bucket_us * bucket_us + bucket_us
    from_us = until_us - span_us
    whole = len(endings) < limit or endings[-1].created_at_us < from_us
    return pace_of(endings, from_us=from_us, until_us=until_us, bucket_us=bucket_us, whole=whole)


def span_of(asked: Asked) -> tuple[str, int, int]:
    return SPANS.get(asked.word("span"), SPANS["day"])


def view(facts: Facts, asked: Asked, _: Knowledge, *, now_us: int) -> Mapping[str, Any]:
    rows = [
        _row(name, [count for count in facts.counts if count.workflow == name], pace, asked)
        for name, pace in facts.paces
    ]
    return {
        "rows": sorted(rows, key=lambda row: (not row["alarming"], not row["ended"])),
        "left": facts.left,
        "spans": spans(asked),
        "span": span_of(asked)[0],
        "span_ago": words.relative(-span_of(asked)[1]),
    }


def spans(asked: Asked) -> list[Mapping[str, Any]]:
    chosen = asked.word("span") or "day"
    return [
        {"label": label.removeprefix("the ").capitalize(), "href": asked.changed(span=key), "chosen": key == chosen}
        for key, (label, _, _) in SPANS.items()
    ]


def _row(name: str, counts: Sequence[InstanceCount], pace: Pace, asked: Asked) -> Mapping[str, Any]:
    return {
        "name": name,
        "href": asked.to("/workflows/one", name=name, span=asked.word("span")),
        **numbers(counts, pace, asked, name),
    }


def numbers(counts: Sequence[InstanceCount], pace: Pace, asked: Asked, name: str) -> Mapping[str, Any]:
    """What is measured of one workflow."""
    rate = plots.failure_rate(pace)
    by_group = [
        (label, tone, sum(c.count for c in counts if c.status in statuses), key)
        for key, label, tone, statuses in GROUPS
    ]
    return {
        "all": words.count(sum(count.count for count in counts), capped=any(count.capped for count in counts)),
        "under_way": sum(count.count for count in counts if count.status not in ENDED),
        "shares": plots.shares([(tone, many) for _, tone, many, _ in by_group]),
        "groups": [
            {
                "label": label,
                "tone": tone,
                "count": words.count(many),
                "href": asked.to("/instances", workflow=name, status=key),
            }
            for label, tone, many, key in by_group
            if many
        ],
        "highest": words.count(plots.highest(pace.buckets)),
        "failed_href": asked.to("/instances", workflow=name, status="failed"),
        "bars": plots.throughput(pace.buckets, [bucket_label(bucket.from_us) for bucket in pace.buckets]),
        "started": sum(bucket.started for bucket in pace.buckets),
        "ended": sum(bucket.completed + bucket.failed + bucket.cancelled for bucket in pace.buckets),
        "failed": sum(bucket.failed for bucket in pace.buckets),
        "rate": None if rate is None else f"{100 * rate:.1f} %" if 0 < rate < 0.1 else f"{100 * rate:.0f} %",
        "alarming": rate is not None and rate >= 0.05,
        "took": _took(pace),
        "measured": words.count(pace.ended),
        "whole": pace.whole,
    }


def _took(pace: Pace) -> list[tuple[str, str]]:
    """Percentiles, as far as they can differ; nothing where none has ended."""
    found = [("median", pace.p50_us), ("p95", pace.p95_us), ("p99", pace.p99_us)]
    return [(label, words.span(us)) for label, us in found if us is not None][: 1 if pace.ended == 1 else 3]


def bucket_label(from_us: int) -> str:
    return f"{datetime.fromtimestamp(from_us / words.SECOND_US, UTC):%d %b %H:%M} UTC"
