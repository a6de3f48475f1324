"""What pages decide without a browser: what is asked of the database, what is shown of it, in which order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from edda.core.history import InstanceId
from edda.core.lifecycle import Status
from edda.storage.reads import Bucket, Ending, InstanceSummary, Page, Reader
from edda.viewer import events_page, instances_page, plots, workflow_page
from edda.viewer.asked import Asked
from edda.viewer.knowledge import Knowledge
from edda.viewer.pages import mark_of
from edda.viewer.statuses import look_now

MINUTE_US = 60_000_000


class Database:
    """Two failed instances and one that goes on; it counts how often it is asked for errors."""

    def __init__(self) -> None:
        self.asked_for: list[list[InstanceId]] = []

    async def clock(self) -> int:
        return 0

    async def instance_counts(self) -> tuple[()]:
        return ()

    async def instance_page(self, which: object, *, page: str | None = None) -> Page[InstanceSummary]:
        return Page(rows=(summary("a", Status.FAILED), summary("b", Status.RUNNING), summary("c", Status.FAILED)))

    async def errors(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, str]:
        self.asked_for.append([*ids])
        return {InstanceId("a"): json.dumps({"error_type": "OutOfStock", "error_message": "no\ncups"})}


def summary(name: str, status: Status) -> InstanceSummary:
    ended = 2 if status is Status.FAILED else None
    return InstanceSummary(InstanceId(name), "w", status, "", None, None, None, 0, None, 1, 2, ended)


async def test_rows_that_failed_say_why_and_one_that_has_gone_meanwhile_says_nothing() -> None:
    database = Database()
    facts = await instances_page.load(cast(Reader, database), Asked())
    assert database.asked_for == [["a", "c"]]
    shown = instances_page.view(facts, Asked(), Knowledge(), now_us=9)["rows"]
    assert [row["error"] for row in shown] == ["OutOfStock: no cups", "", ""]


async def test_who_only_watches_a_list_asks_for_no_errors_and_gets_the_same_mark() -> None:
    database = Database()
    seen = await instances_page.load(cast(Reader, database), Asked())
    watched = await instances_page.load(cast(Reader, database), Asked(only_mark=True))
    assert len(database.asked_for) == 1
    assert mark_of(seen) == mark_of(watched)


def test_what_was_asked_for_is_told_where_nothing_matches() -> None:
    used = {"status": "", "id": "order-9", "since": "hour", "text": ""}
    assert instances_page.wanted({**dict.fromkeys(("workflow", "input", "from", "before", "parent"), ""), **used}) == [
        ("id begins with", "order-9"),
        ("started within", "last hour"),
    ]


@pytest.mark.parametrize(
    ("reason", "owned", "label"),
    [
        ("retry of pay:1 (attempt 1 failed)", False, "Retrying"),
        ("retry of pay:1 (attempt 1 failed)", True, "Running"),
        ("", False, "Running"),
    ],
)
def test_an_instance_that_waits_for_its_next_attempt_is_not_called_running(
    reason: str, owned: bool, label: str
) -> None:
    assert look_now(Status.RUNNING, reason=reason, owned=owned).label == label


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("event paid", ""),
        ('event paid (order_id="7")', 'order_id="7"'),
        ('event shipped (n=1), paid (order_id="7")', 'shipped (n=1), paid (order_id="7")'),
        ("", ""),
    ],
)
def test_a_wait_is_told_with_what_its_event_must_hold(reason: str, told: str) -> None:
    assert events_page.criteria_of(reason, "paid") == told


def test_the_highest_bar_is_what_ended_in_the_busiest_time() -> None:
    buckets = [
        Bucket(from_us=0, started=9, completed=1, failed=0, cancelled=0),
        Bucket(from_us=1, started=0, completed=2, failed=1, cancelled=1),
    ]
    assert plots.highest(buckets) == 4
    assert plots.highest([]) == 0


def test_durations_fill_the_width_whether_they_are_alike_or_far_apart() -> None:
    alike = durations(MINUTE_US // 2, MINUTE_US)
    assert (alike[0]["width"], alike[-1]["width"]) == (50, 100)
    apart = durations(1_000, 1_000_000, 100 * MINUTE_US)
    widths = [row["width"] for row in apart]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (8, 100)


def durations(*lengths_us: int) -> list[Mapping[str, Any]]:
    return workflow_page.durations([Ending(Status.COMPLETED, 0, length_us) for length_us in lengths_us])
