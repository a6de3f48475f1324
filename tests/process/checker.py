"""The verdict: a dump of the database, read by SQL alone, against the laws that no crash may break.

It must not import the engine: what it knows are tables, statuses and names of history kinds, as a user would. A law is
a function from a dump to violations; its number is that of the invariant which it checks (I1, I2, ...).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.process import programs

DRIVERS: Final = {"postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}

LAST: Final = {
    "completed": "WorkflowCompleted",
    "failed": "WorkflowFailed",
    "cancelled": "WorkflowCancelled",
    "compensation_failed": "WorkflowCompensationFailed",
}
TERMINAL_KINDS: Final = frozenset(LAST.values())
RESULTS: Final = frozenset(
    {"ActivityCompleted", "ActivityFailed", "TimerFired", "ChildStarted", "ChildCompleted", "ChildFailed",
     "ChildCancelled", "CompensationExecuted", "CompensationFailed"}
)  # fmt: skip
SLACK_SECONDS: Final = 0.3
"""Between the clock of the database, as a worker knows it, and that of a process on the same machine."""


class Instance(NamedTuple):
    id: str
    workflow: str
    status: str
    reason: str
    owner: str | None
    claim: int
    crashes: int
    input: str
    output: str | None
    error: str | None
    parent_id: str | None
    cancelled: bool


class Event(NamedTuple):
    seq: int
    claim: int
    at_us: int
    kind: str
    call_id: str
    name: str
    output: str | None
    meta: str | None

    @property
    def undo(self) -> str | None:
        return json.loads(self.meta).get("undo") if self.meta else None


class Effect(NamedTuple):
    instance_id: str
    call_id: str
    kind: str
    attempt: int
    worker: str


class Violation(NamedTuple):
    law: str
    where: str
    words: str

    def __str__(self) -> str:
        return f"{self.law} {self.where}: {self.words}"


@dataclass(slots=True)
class Dump:
    """Everything, as of one moment."""

    instances: dict[str, Instance] = field(default_factory=dict[str, Instance])
    histories: dict[str, list[Event]] = field(default_factory=dict[str, list[Event]])
    effects: list[Effect] = field(default_factory=list[Effect])
    workers: Counter[str] = field(default_factory=Counter[str])

    @property
    def rows(self) -> int:
        return sum(map(len, self.histories.values()))

    def statuses(self) -> Counter[str]:
        return Counter(instance.status for instance in self.instances.values())


# -- reading -----------------------------------------------------------------------------------------------------------

_INSTANCES: Final = (
    "SELECT id, workflow, status, reason, owner, claim, crashes, input, output, error, parent_id, "
    "CASE WHEN cancel_requested_at_us IS NULL THEN 0 ELSE 1 END FROM edda_instance"
)
_HISTORY: Final = (
    "SELECT instance_id, seq, claim, at_us, kind, call_id, name, output, meta FROM edda_history "
    "ORDER BY instance_id, seq"
)
_EFFECTS: Final = f"SELECT instance_id, call_id, kind, attempt, worker FROM {programs.EFFECT}"
_WORKERS: Final = "SELECT state, count(*) FROM edda_worker GROUP BY state"
_STATUSES: Final = "SELECT status, count(*) FROM edda_instance GROUP BY status"
_ALIVE: Final = "SELECT id FROM edda_worker WHERE state = 'alive'"


def read(url: str, *statements: str) -> list[list[tuple[Any, ...]]]:
    """The rows of some statements, all from one snapshot."""
    if url.startswith("sqlite"):
        return _read_sqlite(url, statements)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, _read_server(url, statements)).result()


def _read_sqlite(url: str, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    path = make_url(url).database
    assert path is not None
    connection = sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=20
    )
    try:
        connection.execute("BEGIN")
        return [connection.execute(statement).fetchall() for statement in statements]
    finally:
        connection.close()


async def _read_server(url: str, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    parsed = make_url(url)
    engine = create_async_engine(
        parsed.set(drivername=DRIVERS[parsed.get_backend_name()]).difference_update_query(["pgbouncer"]),
        poolclass=NullPool,
        isolation_level="REPEATABLE READ",
    )
    try:
        async with engine.connect() as connection:
            return [[tuple(row) for row in await connection.execute(text(statement))] for statement in statements]
    finally:
        await engine.dispose()


def execute(url: str, statement: str) -> None:
    """One statement that changes something: the table for the effects."""
    if url.startswith("sqlite"):
        path = make_url(url).database
        assert path is not None
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.commit()
        connection.close()
        return

    async def run() -> None:
        parsed = make_url(url)
        driver = DRIVERS[parsed.get_backend_name()]
        engine = create_async_engine(
            parsed.set(drivername=driver).difference_update_query(["pgbouncer"]), poolclass=NullPool
        )
        async with engine.begin() as connection:
            await connection.execute(text(statement))
        await engine.dispose()

    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, run()).result()


def dump(url: str) -> Dump:
    instances, history, effects, workers = read(url, _INSTANCES, _HISTORY, _EFFECTS, _WORKERS)
    result = Dump(workers=Counter({row[0]: row[1] for row in workers}))
    for row in instances:
        result.instances[row[0]] = Instance(*row[:11], cancelled=bool(row[11]))
        result.histories[row[0]] = []
    for instance_id, *rest in history:
        result.histories.setdefault(instance_id, []).append(Event(*rest))
    result.effects = [Effect(*row) for row in effects]
    return result


def statuses(url: str) -> Counter[str]:
    return Counter({row[0]: row[1] for row in read(url, _STATUSES)[0]})


def alive(url: str) -> list[str]:
    """Ids of the workers that count as alive. A worker's id holds its pid."""
    return [row[0] for row in read(url, _ALIVE)[0]]


# -- laws of every committed snapshot ----------------------------------------------------------------------------------


def gapless(dump: Dump) -> Iterator[Violation]:
    """I1, and I2 as far as history alone tells."""
    for instance_id, events in dump.histories.items():
        if [event.seq for event in events] != list(range(1, len(events) + 1)):
            yield Violation("I1", instance_id, f"seq is {[event.seq for event in events]}")
        claims = [event.claim for event in events]
        if claims != sorted(claims):
            yield Violation("I2", instance_id, f"claims along history: {claims}")
        if instance_id not in dump.instances:
            yield Violation("I1", instance_id, "there is history, but no instance")
        elif claims and claims[-1] > dump.instances[instance_id].claim:
            yield Violation("I2", instance_id, f"history of claim {claims[-1]}, which was never given")


def one_result(dump: Dump) -> Iterator[Violation]:
    """I4."""
    for instance_id, events in dump.histories.items():
        counts = Counter((event.call_id, event.kind in RESULTS) for event in events if event.kind in RESULTS)
        children = Counter(event.call_id for event in events if event.kind == "ChildStarted")
        for (call_id, _), count in counts.items():
            if count - children[call_id] > 1 or children[call_id] > 1:
                kinds = [event.kind for event in events if event.call_id == call_id]
                yield Violation("I4", instance_id, f"{call_id} has more than one result: {kinds}")


def status_and_history_agree(dump: Dump) -> Iterator[Violation]:
    """I5, and nothing after the end (I6)."""
    for instance_id, instance in dump.instances.items():
        events = dump.histories[instance_id]
        last = events[-1].kind if events else None
        if instance.status in LAST and last != LAST[instance.status]:
            yield Violation("I5", instance_id, f"is {instance.status}, but its last row is {last}")
        if instance.status not in LAST and last in TERMINAL_KINDS:
            yield Violation("I5", instance_id, f"is {instance.status}, but its last row is {last}")
        undoing = any(event.kind == "CompensationStarted" for event in events)
        if undoing and instance.status in ("running", "waiting_for_timer", "waiting_for_event", "completed"):
            yield Violation("I5", instance_id, f"is {instance.status}, but its undoing has begun")
        if instance.status == "compensating" and not undoing:
            yield Violation("I5", instance_id, "is compensating, but no row says so")
        for event in events[:-1]:
            if event.kind in TERMINAL_KINDS:
                yield Violation("I6", instance_id, f"there are rows after {event.kind}")


def effects_exactly_once(dump: Dump) -> Iterator[Violation]:
    """I9 and I10: what was written through `ctx.session` stands there once if its record does, else not at all."""
    there = Counter((effect.instance_id, effect.call_id, effect.kind) for effect in dump.effects)
    owed: Counter[tuple[str, str, str]] = Counter()
    for instance_id, events in dump.histories.items():
        for event in events:
            if event.kind == "ActivityCompleted" and event.name in programs.SESSION_ACTIVITIES:
                owed[instance_id, event.call_id, "do"] += 1
            elif event.kind == "CompensationExecuted":
                owed[instance_id, event.call_id, "undo"] += 1
    for key in there.keys() | owed.keys():
        if there[key] != owed[key]:
            law = "I10" if not owed[key] else "I9"
            yield Violation(law, key[0], f"{key[1]} ({key[2]}): {there[key]} effect rows, {owed[key]} records")


def undo_order(dump: Dump) -> Iterator[Violation]:
    """I33 to I36, as far as it has come: newest completion first, each once, and the body silent from then on."""
    for instance_id, events in dump.histories.items():
        begun = next((place for place, event in enumerate(events) if event.kind == "CompensationStarted"), None)
        executed = [event.call_id for event in events if event.kind == "CompensationExecuted"]
        if begun is None:
            if executed:
                yield Violation("I33", instance_id, f"undone without a beginning: {executed}")
            status = dump.instances[instance_id].status if instance_id in dump.instances else ""
            if status in ("failed", "cancelled") and any(event.undo for event in events):
                yield Violation("I33", instance_id, f"is {status}, and what is owed was not undone")
            continue
        after = [e.kind for e in events[begun + 1 :] if not e.kind.startswith(("Compensation", "Retry", "Workflow"))]
        if after:
            yield Violation("I34", instance_id, f"rows of the body after CompensationStarted: {after}")
        owed = [f"undo/{event.call_id}" for event in reversed(events[:begun]) if event.undo]
        if executed != owed[: len(executed)]:
            yield Violation("I33", instance_id, f"owed {owed}, executed {executed}")
        status = dump.instances[instance_id].status if instance_id in dump.instances else ""
        if status in ("failed", "cancelled") and executed != owed:
            yield Violation("I36", instance_id, f"is {status} with {executed} of {owed} undone")


LAWS: Final = (gapless, one_result, status_and_history_agree, effects_exactly_once, undo_order)


def violations_of(dump: Dump) -> list[Violation]:
    return [violation for law in LAWS for violation in law(dump)]


# -- laws of two snapshots ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Growth:
    """I3 and I6: history only grows, and nothing of an ended instance ever changes."""

    _seen: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    _ended: dict[str, tuple[str, int, int]] = field(default_factory=dict[str, tuple[str, int, int]])
    snapshots: int = 0

    def look(self, dump: Dump) -> list[Violation]:
        self.snapshots += 1
        found: list[Violation] = []
        for instance_id, (count, digest) in self._seen.items():
            if _digest(dump.histories.get(instance_id, [])[:count]) != digest:
                found.append(Violation("I3", instance_id, f"the first {count} rows have changed"))
        for instance_id, before in self._ended.items():
            instance = dump.instances.get(instance_id)
            now = (instance.status, instance.claim, len(dump.histories[instance_id])) if instance else None
            if now != before:
                found.append(Violation("I6", instance_id, f"had ended as {before}, now it is {now}"))
        for instance_id, instance in dump.instances.items():
            events = dump.histories[instance_id]
            self._seen[instance_id] = (len(events), _digest(events))
            if instance.status in LAST:
                self._ended.setdefault(instance_id, (instance.status, instance.claim, len(events)))
        return found


def _digest(events: Sequence[Event]) -> str:
    return hashlib.sha256(repr(list(events)).encode()).hexdigest()


# -- laws of the end ---------------------------------------------------------------------------------------------------


def everything_ended(dump: Dump) -> Iterator[Violation]:
    """I52: once the faults are over, nothing is left behind."""
    for instance in dump.instances.values():
        if instance.status not in LAST:
            words = f"is {instance.status} ({instance.reason}), owner {instance.owner}, crashes {instance.crashes}"
            yield Violation("I52", instance.id, f"{words}, error {(instance.error or '')[:300]}")
        elif instance.owner is not None:
            yield Violation("I52", instance.id, f"is {instance.status}, and still owned by {instance.owner}")


def everything_started_is_there(dump: Dump, started: Iterable[str], workflows: int) -> Iterator[Violation]:
    """No acknowledged start is lost; started = the sum of the states; a child for each `ChildStarted`, and no other."""
    for instance_id in started:
        if instance_id not in dump.instances:
            yield Violation("I21", instance_id, "its start was acknowledged, but it is not there")
    roots = [instance for instance in dump.instances.values() if instance.parent_id is None]
    if len(roots) != workflows:
        yield Violation("count", "", f"{workflows} workflows were started, {len(roots)} are there")
    children = Counter(instance.parent_id for instance in dump.instances.values() if instance.parent_id is not None)
    for instance_id, events in dump.histories.items():
        recorded = sum(event.kind == "ChildStarted" for event in events)
        if recorded != children[instance_id]:
            yield Violation("count", instance_id, f"{recorded} ChildStarted, {children[instance_id]} children")


def results_are_right(dump: Dump, seed: int) -> Iterator[Violation]:
    """I11 and I15 by their fruit: the result is what the program has to give, whatever happened on the way."""
    for instance in dump.instances.values():
        if instance.cancelled or instance.status not in LAST:
            continue
        if _has_cancelled_ancestor(dump, instance):
            continue
        number = json.loads(instance.input)
        number = (list(number["args"]) + list(number["kwargs"].values()))[0]
        wanted = programs.expected(instance.workflow, number, seed)
        if wanted is None:
            if instance.status != "failed":
                yield Violation("result", instance.id, f"{instance.workflow} has to fail, but is {instance.status}")
        elif instance.status != "completed":
            yield Violation("result", instance.id, f"{instance.workflow} is {instance.status}: {instance.error}")
        elif json.loads(instance.output or "null") != wanted:
            yield Violation("result", instance.id, f"{instance.workflow} gave {instance.output}, not {wanted}")


def _has_cancelled_ancestor(dump: Dump, instance: Instance) -> bool:
    parent = dump.instances.get(instance.parent_id) if instance.parent_id else None
    return parent is not None and (parent.cancelled or _has_cancelled_ancestor(dump, parent))


def cancels_hold(dump: Dump, accepted: Iterable[str]) -> Iterator[Violation]:
    """I37."""
    for instance_id in accepted:
        instance = dump.instances.get(instance_id)
        if instance is None or instance.status not in ("cancelled", "compensation_failed"):
            status = instance.status if instance else "not there"
            yield Violation("I37", instance_id, f"the cancel was accepted, but it is {status}")


# -- laws over the logs of the processes -------------------------------------------------------------------------------


def claims_are_unique(logs: Iterable[Mapping[str, Any]]) -> Iterator[Violation]:
    """I2: a claim number was given to one worker."""
    given: dict[tuple[str, int], str] = {}
    for line in logs:
        if line["e"] == "claim":
            for instance_id, claim in line["ids"]:
                other = given.setdefault((instance_id, claim), line["worker"])
                if other != line["worker"]:
                    yield Violation("I2", instance_id, f"claim {claim} was given to {other} and {line['worker']}")


def no_late_entry(dump: Dump, logs: Sequence[Mapping[str, Any]]) -> Iterator[Violation]:
    """I12: what is completed is not entered again, but by a worker that lost the claim and has not heard of it yet."""
    completed = {
        (instance_id, event.call_id): event
        for instance_id, events in dump.histories.items()
        for event in events
        if event.kind in ("ActivityCompleted", "CompensationExecuted")
    }
    held: dict[tuple[str, str], int] = {}
    for line in sorted(logs, key=lambda line: line["t"]):
        if line["e"] == "claim":
            held |= {(line["worker"], instance_id): claim for instance_id, claim in line["ids"]}
        elif line["e"] == "begin" and (event := completed.get((line["i"], line["c"]))) is not None:
            late = line["at"] - event.at_us / 1e6
            claim = held.get((line["w"], line["i"]), 1)  # whoever created it has the first one
            if late > SLACK_SECONDS and claim >= event.claim:
                yield Violation("I12", line["i"], f"{line['c']} was entered by {line['w']}, completed {late:.2f} s ago")


def failures_are_bounded(dump: Dump) -> Iterator[Violation]:
    """I13: no more failures are recorded than the policies allow."""
    for instance_id, events in dump.histories.items():
        failures = Counter((event.call_id, event.name) for event in events if event.kind.endswith("AttemptFailed"))
        for (call_id, name), count in failures.items():
            policy = programs.PARKING if name == "patient_step" else programs.QUICK
            if count >= (policy.max_attempts or 0):
                yield Violation("I13", instance_id, f"{call_id} failed {count} times")
