"""Workers: who lives, what they hold, and what waits for one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edda.storage.reads import Backlog, Reader, WorkerView
from edda.viewer import words
from edda.viewer.asked import Asked
from edda.viewer.knowledge import Knowledge

LATE_US: Final = 5 * words.SECOND_US
"""A claimable instance that waits longer than that says that workers are missing or overloaded."""

WORKFLOWS_MAX: Final = 160
"""Characters in which the workflows of a worker are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    workers: tuple[WorkerView, ...]
    backlogs: tuple[Backlog, ...]


async def load(reads: Reader, asked: Asked) -> Facts:
    return Facts(workers=(await reads.worker_views()).rows, backlogs=(await reads.backlogs()).rows)


def view(facts: Facts, asked: Asked, _: Knowledge, *, now_us: int) -> Mapping[str, Any]:
    alive = [worker for worker in facts.workers if worker.alive]
    dead = [worker for worker in facts.workers if not worker.alive]
    most = max(worker.held for worker in alive) if len(alive) > 1 else 0
    late_us = max([0, *(now_us - backlog.oldest_us for backlog in facts.backlogs)])
    return {
        "alive": [_worker(worker, most, now_us=now_us) for worker in alive],
        "dead": [_worker(worker, most, now_us=now_us) for worker in dead],
        "held": words.count(sum(worker.held for worker in alive)),
        "backlogs": [
            {
                "workflow": backlog.workflow,
                "href": asked.to("/instances", workflow=backlog.workflow),
                "count": words.count(backlog.claimable, capped=backlog.capped),
                "lag": words.span(now_us - backlog.oldest_us),
                "late": now_us - backlog.oldest_us > LATE_US,
            }
            for backlog in facts.backlogs
        ],
        "lag": words.span(late_us) if facts.backlogs else "none",
        "late": late_us > LATE_US,
    }


def _worker(worker: WorkerView, most: int, *, now_us: int) -> Mapping[str, Any]:
    """`most`: what the busiest of several holds; 0 where there is nothing to compare with."""
    known = ", ".join(worker.workflows or ())
    left_us = worker.lease_until_us - now_us
    if not worker.alive:
        state, tone = "Dead", "cancelled"
    elif left_us < 0:
        state, tone = "Lease over", "failed"
    elif worker.present is False:
        state, tone = "Not connected", "aside"
    else:
        state, tone = "Alive", "completed"
    return {
        "id": worker.id,
        "service": worker.service,
        "state": state,
        "tone": tone,
        "lease_over": left_us < 0,
        "lease": words.moment(worker.lease_until_us, now_us=now_us),
        "started": words.moment(worker.started_at_us, now_us=now_us),
        "held": words.count(worker.held),
        "load": round(100 * worker.held / most, 2) if most else None,
        "workflows": words.end_cut(known, WORKFLOWS_MAX),
        "all_workflows": known,
    }
