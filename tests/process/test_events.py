"""The short form of the event test, and a look at whether its judge sees what it should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.databases import available
from tests.process.event_checker import Answer, Facts, Sent, Stored, violations
from tests.process.event_test import Plan, run
from tests.process.nemesis import Appetite

KINDS = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.postgresql),
    pytest.param("mysql", marks=pytest.mark.mysql),
]


@pytest.mark.process
@pytest.mark.timeout(180)
@pytest.mark.parametrize("database", KINDS)
async def test_no_event_is_lost_doubled_or_left_lying_when_receivers_and_workers_die(database: str) -> None:
    if available()[database] is None:
        pytest.skip(f"there is no {database} server")
    appetite = Appetite(kill=1.5, stop=4.0, terminate=8.0, stopped_min=2.5, stopped_max=3.5)
    report = await run(Plan(database=database, events=1000, seconds=7.0, appetite=appetite))
    print(report)
    assert report.good, f"\n{report}"


SECOND = 1_000_000
SENT = {
    name: Sent(name, who, first_sent=first, heard=first + 0.1, times=1)
    for name, who, first in [
        ("matched:1:0", "a", 10.0),
        ("matched:1:1", "a", 11.0),
        ("timed:2:0", "b", 10.0),
        ("tick:0:0", None, 10.0),
    ]
}
INBOX = [Stored(f"key {name}", name, round((one.first_sent + 0.05) * SECOND), 1) for name, one in SENT.items()]


def answers(instance_id: str, *names: str | None) -> list[Answer]:
    """What an instance received, a second after it was sent; None: a timeout."""
    return [
        Answer(instance_id, seq, "EventTimedOut", 20 * SECOND, None, None)
        if name is None
        else Answer(instance_id, seq, "EventReceived", 12 * SECOND, f"key {name}", name)
        for seq, name in enumerate(names, start=2)
    ]


GOOD = Facts(
    statuses={"a": "completed", "b": "completed"},
    inbox=INBOX,
    answers={"a": answers("a", "matched:1:0", "matched:1:1"), "b": answers("b", "timed:2:0", "tick:0:0")},
    previous_us={(name, seq): 10 * SECOND for name in "ab" for seq in range(9)},
)


def with_answers(name: str, *events: str | None) -> Facts:
    return replace(GOOD, answers={**GOOD.answers, name: answers(name, *events)})


def with_inbox(change: Callable[[Sequence[Stored]], Sequence[Stored]]) -> Facts:
    return replace(GOOD, inbox=change(INBOX))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (GOOD, ""),
        (with_inbox(lambda inbox: [*inbox[:3]]), "is not there"),
        (with_inbox(lambda inbox: [*inbox, inbox[0]]), "stored 2 times"),
        (with_inbox(lambda inbox: [*inbox, Stored("k", "alien:0:0", 1, 1)]), "never sent"),
        (with_inbox(lambda inbox: [*inbox[:3], inbox[3]._replace(routed=0)]), "never led to its end"),
        (with_inbox(lambda inbox: [*inbox[:2], inbox[2]._replace(accepted_at_us=11 * SECOND), inbox[3]]), "counted"),
        (with_answers("a", "matched:1:0", "matched:1:0"), "2 times in its history"),
        (with_answers("a", "matched:1:1", "matched:1:0"), "which came later"),
        (with_answers("b", "matched:1:0"), "which is for a"),
        (with_answers("b", None, "timed:2:0"), "was in time"),
        (replace(GOOD, statuses={"a": "waiting_for_event", "b": "completed"}), "is waiting_for_event"),
        (replace(GOOD, statuses={"a": "failed", "b": "completed"}), "ended as failed"),
    ],
)
def test_the_judge_sees_each_kind_of_violation(facts: Facts, words: str) -> None:
    found: list[Any] = violations(facts, SENT)
    assert any(words in each.words for each in found) if words else not found, found
