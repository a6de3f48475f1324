"""The outbox: what waits to be delivered, what was, and the dead letters, which somebody has to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edda.storage.outbox import DEAD, DELIVERED, PENDING
from edda.storage.reads import OutboxCount, OutboxView, Page, Reader
from edda.viewer import words
from edda.viewer.asked import Asked, instance_path
from edda.viewer.knowledge import Knowledge
from edda.viewer.values import one_line, shown

BRIEF_MAX: Final = 100
"""Characters of a message's data that the list shows."""
TABS: Final = (
    (DEAD, "Dead letters", "failed"),
    (PENDING, "Pending", "waiting"),
    (DELIVERED, "Delivered", "completed"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    status: str
    found: Page[OutboxView]
    counts: tuple[OutboxCount, ...]


async def load(reads: Reader, asked: Asked) -> Facts:
    counts = await reads.outbox_counts()
    status = asked.word("status")
    if status not in (DEAD, PENDING, DELIVERED):
        status = DEAD if _count(counts, DEAD) else PENDING
    found = await reads.outbox_page(status=status, type=asked.word("type"), page=asked.word("page") or None)
    return Facts(status=status, found=found, counts=counts)


def _count(counts: Sequence[OutboxCount], status: str) -> int:
    return sum(count.count for count in counts if count.status == status)


def view(facts: Facts, asked: Asked, _: Knowledge, *, now_us: int) -> Mapping[str, Any]:
    return {
        "status": facts.status,
        "tabs": [
            {
                "label": label,
                "tone": tone,
                "count": words.count(
                    _count(facts.counts, status), capped=any(c.capped for c in facts.counts if c.status == status)
                ),
                "href": asked.changed(status=status, page=None),
                "chosen": status == facts.status,
            }
            for status, label, tone in TABS
        ],
        "used": {"type": asked.word("type")},
        "rows": [_row(row, asked, now_us=now_us) for row in facts.found.rows],
        "older": asked.changed(page=facts.found.next_page) if facts.found.next_page else None,
        "newest": asked.changed(page=None) if asked.word("page") else None,
        "scanned_all": facts.found.scanned_all,
    }


def _row(row: OutboxView, asked: Asked, *, now_us: int) -> Mapping[str, Any]:
    message = row.message
    data = shown(message.data, message.blob)
    return {
        "id": message.id,
        "type": message.type,
        "source": message.source,
        "content_type": message.content_type,
        "instance_id": message.instance_id,
        "instance_short": words.middle_cut(message.instance_id, 34),
        "href": asked.to(instance_path(message.instance_id)) if message.instance_id else None,
        "sent": words.moment(message.at_us, now_us=now_us),
        "due": words.moment(row.due_at_us, now_us=now_us),
        "attempts": row.attempts,
        "relayer": row.relayer,
        "reason": row.reason or "",
        "data": data,
        "brief": one_line(data, BRIEF_MAX),
        "dead": row.status == DEAD,
        "pending": row.status == PENDING,
    }
