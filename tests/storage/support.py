"""What tests of storage need: short ways to say what is written, and a look at everything that is stored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from edda.core.commit import (
    STAY,
    Batch,
    BatchOutcome,
    Commit,
    Creation,
    NewInstance,
    OutboxMessage,
    RowChange,
    Verdict,
)
from edda.core.history import CallId, HistoryEvent, InstanceId, Kind, WorkerId
from edda.storage.port import Claims, InstanceRow, LeaseLine, Renewal
from edda.storage.sql.database import Lane
from edda.storage.sql.schema import TABLES
from edda.storage.sql.store import SqlStore
from edda.storage.sql.verb import Row, Statement, Verb

LEASE_US = 3_600_000_000
NEVER = None
LONG_AGO = 1
FAR = 10**18
W1, W2, W3 = WorkerId("worker-1"), WorkerId("worker-2"), WorkerId("worker-3")


def iid(name: str) -> InstanceId:
    return InstanceId(name)


def new(name: str, *, owner: WorkerId | None = None, workflow: str = "order", **more: Any) -> NewInstance:
    return NewInstance(id=iid(name), workflow=workflow, input="{}", args_hash="hash", owner=owner, **more)


def event(name: str, seq: int, claim: int = 1, kind: Kind = Kind.ACTIVITY_COMPLETED, **more: Any) -> HistoryEvent:
    values: dict[str, Any] = {"input": '{"args": []}', "output": "1", **more}
    return HistoryEvent(
        instance_id=iid(name),
        seq=seq,
        claim=claim,
        at_us=1000 + seq,
        kind=kind.value,
        call_id=CallId(f"pay:{seq}"),
        name="pay",
        **values,
    )


def message(name: str, seq: int, ordinal: int = 0, **more: Any) -> OutboxMessage:
    values: dict[str, Any] = {
        "id": f"{name}/{seq}/{ordinal}",
        "instance_id": iid(name),
        "seq": seq,
        "ordinal": ordinal,
        "type": "order.paid",
        "source": "/orders",
        "data": "{}",
        "blob": None,
        "content_type": "application/json",
        "at_us": 5,
    }
    return OutboxMessage(**values | more)


def commit(name: str, *seqs: int, claim: int = 1, row: RowChange = STAY, **more: Any) -> Commit:
    """A commit of an instance with steps at these places of its history."""
    records = tuple(event(name, seq, claim) for seq in seqs)
    return Commit(instance_id=iid(name), claim=claim, records=records, row=row, **more)


@dataclass
class World:
    """A store, and the workers that are registered there."""

    store: Any
    lines: dict[WorkerId, LeaseLine] = field(default_factory=dict[WorkerId, LeaseLine])

    async def worker(self, worker: WorkerId = W1, *, lease_us: int = LEASE_US) -> WorkerId:
        line = self.store.lease_line()
        await line.connect()
        await line.register(worker, service="tests", lease_us=lease_us)
        self.lines[worker] = line
        return worker

    async def leave(self, worker: WorkerId) -> None:
        """The process of this worker dies: its presence is gone."""
        await self.lines.pop(worker).close()

    async def close(self) -> None:
        for worker in list(self.lines):
            await self.leave(worker)

    async def write(self, *commits: Commit, worker: WorkerId = W1) -> tuple[Verdict, ...]:
        return (await self.outcome(*commits, worker=worker)).verdicts

    async def outcome(self, *commits: Commit, worker: WorkerId = W1) -> BatchOutcome:
        outcome: BatchOutcome = await self.store.write(worker, Batch(commits=commits))
        return outcome

    async def start(self, *news: NewInstance, worker: WorkerId = W1) -> tuple[Creation, ...]:
        outcome: BatchOutcome = await self.store.write(worker, Batch(starts=news))
        return outcome.creations

    async def claim(
        self, worker: WorkerId = W1, *, workflows: tuple[str, ...] = ("order",), limit: int = 100, **more: Any
    ) -> list[str]:
        claims: Claims = await self.store.claim(worker, workflows=workflows, limit=limit, **more)
        return [row.id for row in claims.rows]

    async def row(self, name: str) -> InstanceRow:
        row: InstanceRow | None = await self.store.instance(iid(name))
        assert row is not None
        return row

    async def history(self, name: str) -> list[int]:
        histories = await self.store.histories([iid(name)])
        return [record.seq for record in histories[name]]


# -- the whole content ----------------------------------------------------------------------------------------------


def wipe_verb() -> Verb[None]:
    for table in TABLES:
        yield Statement(f"delete from {table.name}")


async def wipe(store: SqlStore) -> None:
    await store.database.run("wipe", wipe_verb, lane=Lane.DESK)


def select_verb(text: str, *params: Any) -> Verb[list[Row]]:
    rows, _ = yield Statement(text, params)
    return [tuple(row) for row in rows]


async def select(store: SqlStore, text: str, *params: Any) -> list[Row]:
    return await store.database.run("select", lambda: select_verb(text, *params), lane=Lane.READ)


async def do(store: SqlStore, text: str, *params: Any) -> None:
    """Like `select`, for statements that change something."""
    await store.database.run("do", lambda: select_verb(text, *params), lane=Lane.DESK)


def timeless(row: InstanceRow, now_us: int) -> InstanceRow:
    """The row with times as words: two stores never agree on microseconds."""
    claimable = row.claimable_at_us
    if row.owner is not None:
        claimable = None
    elif claimable is not None:
        claimable = 1 if claimable <= now_us else 2
    return row._replace(
        claimable_at_us=claimable,
        cancel_requested_at_us=None if row.cancel_requested_at_us is None else 1,
        created_at_us=1,
        updated_at_us=1,
        ended_at_us=None if row.ended_at_us is None else 1,
    )


def comparable(answer: Any) -> Any:
    """An answer without the times in it."""
    match answer:
        case InstanceRow():
            return timeless(answer, FAR - 1)
        case Claims(rows=rows):
            return [timeless(row, FAR - 1) for row in rows]
        case BatchOutcome() | Renewal():
            return replace(answer, now_us=0)
        case HistoryEvent():
            return answer._replace(at_us=0)
        case dict():
            return {name: comparable(each) for name, each in answer.items()}
        case tuple() | list():
            return [comparable(each) for each in answer]
        case _:
            return answer
