"""The verdict of the event test, on what the database holds in the end and on what the sender wrote down.

It must not know how events travel. Times are seconds since 1970, of one machine. An order is judged only where there
is one: an event comes before another if its 202 was heard before the other was sent for the first time.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tests.process.checker import LAST, Violation, read
from tests.process.event_programs import TIMEOUT_SECONDS

MARGIN_SECONDS: Final = 0.005
"""Between the clock of the sender and that of the database."""


@dataclass(slots=True)
class Sent:
    """One event, as its sender knows it."""

    id: str
    instance_id: str | None
    """The only one that it is for; None for a broadcast and for nobody."""
    first_sent: float = 0.0
    heard: float | None = None
    """When its first 202 was heard."""
    times: int = 0

    @property
    def type(self) -> str:
        return self.id.partition(":")[0]


class Stored(NamedTuple):
    key: str
    id: str
    accepted_at_us: int
    routed: int


class Answer(NamedTuple):
    """What a wait got: an event, or a timeout."""

    instance_id: str
    seq: int
    kind: str
    at_us: int
    key: str | None
    event_id: str | None


@dataclass(slots=True, kw_only=True)
class Facts:
    statuses: Mapping[str, str]
    inbox: Sequence[Stored]
    answers: Mapping[str, Sequence[Answer]]
    """By instance, in the order of its history."""
    previous_us: Mapping[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    """By instance and seq: when the row before that was written; the deadline of a wait counts from there."""

    def received(self) -> Iterator[Answer]:
        for answers in self.answers.values():
            yield from (answer for answer in answers if answer.kind == "EventReceived")


def facts(url: str) -> Facts:
    """From one snapshot."""
    instances, inbox, history = read(
        url,
        "SELECT id, status FROM edda_instance",
        "SELECT event_key, id, accepted_at_us, routed FROM edda_inbox",
        "SELECT instance_id, seq, kind, at_us, meta FROM edda_history ORDER BY instance_id, seq",
    )
    answers: dict[str, list[Answer]] = defaultdict(list)
    previous: dict[tuple[str, int], int] = {}
    last: dict[str, int] = {}
    for instance_id, seq, kind, at_us, meta in history:
        if instance_id in last:
            previous[instance_id, seq] = last[instance_id]
        last[instance_id] = at_us
        if kind in ("EventReceived", "EventRejected", "EventTimedOut"):
            details: dict[str, Any] = json.loads(meta) if meta else {}
            answers[instance_id].append(Answer(instance_id, seq, kind, at_us, details.get("key"), details.get("id")))
    return Facts(statuses=dict(instances), inbox=[Stored(*row) for row in inbox], answers=answers, previous_us=previous)


# -- the laws ----------------------------------------------------------------------------------------------------------


def violations(facts: Facts, sent: Mapping[str, Sent]) -> list[Violation]:
    return [
        *conserved(facts, sent),
        *received_once(facts),
        *received_by_the_right_one(facts, sent),
        *nothing_is_stuck(facts, sent),
        *in_order(facts, sent),
        *timeouts_are_right(facts, sent),
    ]


def conserved(facts: Facts, sent: Mapping[str, Sent]) -> Iterator[Violation]:
    """What was answered with 202 is there, once; and nothing is there, or was received, that nobody sent."""
    stored = Counter(one.id for one in facts.inbox)
    for one in sent.values():
        if one.heard is not None and not stored[one.id]:
            yield Violation("conservation", one.id, "was answered with 202, and is not there")
    for event_id, count in stored.items():
        if count > 1:
            yield Violation("conservation", event_id, f"is stored {count} times")
        if event_id not in sent:
            yield Violation("conservation", event_id, "is stored, and was never sent")
    for answer in facts.received():
        if answer.event_id not in stored:
            yield Violation("conservation", answer.instance_id, f"received {answer.event_id}, which is not stored")


def received_once(facts: Facts) -> Iterator[Violation]:
    for instance_id, answers in facts.answers.items():
        keys = Counter(answer.key for answer in answers if answer.key is not None)
        for key, count in keys.items():
            if count > 1:
                yield Violation("once", instance_id, f"has {key} {count} times in its history")


def received_by_the_right_one(facts: Facts, sent: Mapping[str, Sent]) -> Iterator[Violation]:
    for answer in facts.received():
        one = sent.get(answer.event_id or "")
        if one is not None and one.instance_id not in (None, answer.instance_id):
            yield Violation("right one", answer.instance_id, f"received {one.id}, which is for {one.instance_id}")


def nothing_is_stuck(facts: Facts, sent: Mapping[str, Sent]) -> Iterator[Violation]:
    """Every instance was sent all that it waits for, so every one has ended; and every event was led to its end."""
    stored = {one.id for one in facts.inbox}
    for instance_id, status in facts.statuses.items():
        if status not in LAST:
            had = {answer.event_id for answer in facts.answers.get(instance_id, ())}
            mine = [e for e in sent.values() if e.instance_id == instance_id or (e.type == "tick" and not had - stored)]
            left = sorted(one.id for one in mine if one.id in stored - had)
            yield Violation("stuck", instance_id, f"is {status}; it had {sorted(map(str, had))}, and there is {left}")
        elif status != "completed":
            yield Violation("stuck", instance_id, f"ended as {status}")
    for one in facts.inbox:
        if not one.routed:
            yield Violation("stuck", one.id, "was never led to its end")


def in_order(facts: Facts, sent: Mapping[str, Sent]) -> Iterator[Violation]:
    """Of each type, an instance receives in order of acceptance."""
    for instance_id, answers in facts.answers.items():
        by_type: dict[str, list[Sent]] = defaultdict(list)
        for answer in answers:
            if answer.event_id in sent and answer.kind == "EventReceived":
                one = sent[answer.event_id]
                by_type[one.type].append(one)
        for received in by_type.values():
            latest = received[0]
            for one in received[1:]:
                if one.heard is not None and one.heard < latest.first_sent:
                    yield Violation("order", instance_id, f"received {one.id} after {latest.id}, which came later")
                latest = max(latest, one, key=lambda each: each.first_sent)


def timeouts_are_right(facts: Facts, sent: Mapping[str, Sent]) -> Iterator[Violation]:
    """An event whose 202 was heard before a deadline beats it; one that was accepted after it does not count."""
    accepted = {one.id: one.accepted_at_us for one in facts.inbox}
    mine: dict[str, list[Sent]] = defaultdict(list)
    for one in sent.values():
        if one.type == "timed" and one.instance_id is not None and one.heard is not None:
            mine[one.instance_id].append(one)
    for instance_id, answers in facts.answers.items():
        if instance_id not in mine:
            continue
        had: set[str] = set()
        for answer in answers:
            due_us = facts.previous_us[instance_id, answer.seq] + round(TIMEOUT_SECONDS * 1_000_000)
            if answer.kind == "EventReceived" and answer.event_id in accepted:
                had.add(answer.event_id)
                if accepted[answer.event_id] > due_us:
                    yield Violation("timeout", instance_id, f"{answer.event_id} came after its deadline, and counted")
            elif answer.kind == "EventTimedOut":
                if answer.at_us < due_us:
                    yield Violation("timeout", instance_id, f"timed out {due_us - answer.at_us} us early")
                for one in mine[instance_id]:
                    if one.id not in had and (one.heard or 0.0) < due_us / 1e6 - MARGIN_SECONDS:
                        yield Violation("timeout", instance_id, f"timed out at {answer.seq}, and {one.id} was in time")


# -- figures -----------------------------------------------------------------------------------------------------------


def figures(facts: Facts, sent: Iterable[Sent]) -> dict[str, Any]:
    """`accepted = consumed + waiting`; what expires is counted by whoever lets it."""
    consumed = {answer.key for answer in facts.received()}
    stored = {one.key for one in facts.inbox}
    all_sent = list(sent)
    accepted_at = {one.id: one.accepted_at_us for one in facts.inbox}
    crossed = 0
    for answers in facts.answers.values():
        latest: dict[str, int] = {}
        for answer in answers:
            if answer.event_id in accepted_at:
                name = str(answer.event_id).partition(":")[0]
                crossed += accepted_at[answer.event_id] < latest.get(name, 0)
                latest[name] = max(latest.get(name, 0), accepted_at[answer.event_id])
    return {
        "events answered 202": sum(one.heard is not None for one in all_sent),
        "events accepted": len(stored),
        "of them consumed / waiting": f"{len(consumed & stored)} / {len(stored - consumed)}",
        "sendings": sum(one.times for one in all_sent),
        "events sent more than once": sum(one.times > 1 for one in all_sent),
        "receptions": sum(1 for _ in facts.received()),
        "timeouts": sum(answer.kind == "EventTimedOut" for each in facts.answers.values() for answer in each),
        "instances": dict(Counter(facts.statuses.values())),
        "received before one with an earlier stamp (sent at the same time)": crossed,
    }
