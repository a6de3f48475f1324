"""What a database holds in the end, cell by cell, and whether it is what it must be.

The checkers are those of the simulated world (`checkers.Records`), which here see one dump at the end instead of one
after every change; entries into user code come from the board.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edda.core.history import HistoryEvent, InstanceId
from edda.core.lifecycle import ENDED, SET_ASIDE
from edda.core.routing import EventKey
from edda.storage.inbox import InboxEvent
from edda.storage.port import InstanceRow
from edda.storage.sql import open_store
from edda.storage.sql.database import Lane
from edda.storage.sql.rows import EVENT_LIST, inbox_event
from edda.storage.sql.verb import Row, Statement, Verb
from tests.simulation import checkers
from tests.simulation.checkers import Records
from tests.simulation.outcome import problems_of
from tests.simulation.real.board import Board, Cell

EFFECTS_TABLE = "create table canon_effect (instance_id varchar(255) not null, call_id varchar(255) not null)"


class Message(NamedTuple):
    """A row of the outbox."""

    instance_id: str
    seq: int


@dataclass(slots=True)
class CellDump:
    """What is stored of one cell. To the checkers it is a store that nobody writes to any more."""

    rows: dict[InstanceId, InstanceRow] = field(default_factory=dict[InstanceId, InstanceRow])
    history: dict[InstanceId, list[HistoryEvent]] = field(default_factory=dict[InstanceId, list[HistoryEvent]])
    effects: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    outbox: list[Message] = field(default_factory=list[Message])
    workers: dict[str, Any] = field(default_factory=dict[str, Any])
    inbox: dict[EventKey, InboxEvent] = field(default_factory=dict[EventKey, InboxEvent])
    """Of all cells."""
    waits: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    @property
    def is_quiet(self) -> bool:
        return bool(self.rows) and all(row.status in ENDED | SET_ASIDE for row in self.rows.values())


@dataclass(slots=True)
class Dump:
    """All cells of a database, and the workers that are dead though their processes are not."""

    cells: dict[str, CellDump]
    declared_dead: set[str]


async def make_effects_table(url: str) -> None:
    """On SQLite this makes the whole database."""
    store = open_store(url)
    await store.open()
    try:
        await store.database.run("effects", lambda: _once(EFFECTS_TABLE), lane=Lane.DESK)
    finally:
        await store.close()


async def dump(url: str, board: Board) -> Dump:
    """Read everything, without being a worker."""
    store = open_store(url)
    await store.open()
    try:
        ids = [row[0] for row in await _read(store, "select id from edda_instance order by id")]
        rows = await store.instances([InstanceId(each) for each in ids])
        histories = await store.histories([InstanceId(each) for each in ids])
        effects = await _read(store, "select instance_id, call_id from canon_effect")
        messages = await _read(store, "select instance_id, seq from edda_outbox order by instance_id, seq, ordinal")
        inbox = [inbox_event(row) for row in await _read(store, f"select {EVENT_LIST} from edda_inbox")]
        waits = await _read(store, "select instance_id, call_id from edda_wait")
        workers = await _read(store, "select id from edda_worker where state = 'dead'")
    finally:
        await store.close()
    cells: dict[str, CellDump] = defaultdict(CellDump)
    for instance_id, row in rows.items():
        found = cells[board.cell_id_of(instance_id)]
        found.rows[instance_id] = row
        found.history[instance_id] = list(histories[instance_id])
    for instance_id, call_id in effects:
        cells[board.cell_id_of(instance_id)].effects.append(("effect", instance_id, call_id))
    for instance_id, seq in messages:
        cells[board.cell_id_of(instance_id)].outbox.append(Message(instance_id, seq))
    for instance_id, call_id in waits:
        cells[board.cell_id_of(instance_id)].waits.add((instance_id, call_id))
    for cell in cells.values():
        cell.inbox = {one.key: one for one in inbox}
    return Dump(dict(cells), {row[0] for row in workers} - board.killed.keys())


def check(cell: Cell, stored: CellDump, declared_dead: set[str]) -> Iterator[str]:
    """Everything that is wrong with a cell."""
    if InstanceId(cell.id) not in stored.rows:
        yield "202: its start was acknowledged, and it is not there"
        return
    if not stored.is_quiet:
        waiting = [f"{row.id} {row.status} ({row.reason})" for row in stored.rows.values() if row.status not in ENDED]
        yield f"I52: stuck: {waiting}"
        return
    records = _World(stored, disturbances=cell.hits + len(declared_dead)).records
    for number, entry in enumerate(cell.entries):
        # It was declared dead and has not heard of it: then the code may begin once more, and its result is refused.
        stale = entry.worker_id in declared_dead
        if entry.late and not stale:
            yield f"I12: {entry.instance_id} {entry.call_id} was entered after its completion was recorded"
        records._entries[entry.instance_id, entry.call_id].append(
            checkers.Entry(number, entry.worker_id, stale, entry.attempt, 0, entry.name, None)
        )
    records.check_end()
    yield from records.violations
    yield from _check_effects(stored)
    if stored.waits:
        yield f"I26: waits are left: {stored.waits}"
    yield from (f"outcome: {problem}" for problem in problems_of(cell.canonical, cell.id, stored))


def _check_effects(stored: CellDump) -> Iterator[str]:
    """A row of the user's for each completed activity that writes one, and no other (I9, I10)."""
    completed = Counter(
        (instance_id, event.call_id)
        for instance_id, history in stored.history.items()
        for event in history
        if event.kind == "ActivityCompleted" and event.name in checkers.SESSIONS
    )
    found = Counter((instance_id, call_id) for _, instance_id, call_id in stored.effects)
    if completed != found:
        yield f"I9: rows {found - completed} too many, {completed - found} missing"


class _World:
    """What the checkers ask of a world."""

    def __init__(self, store: CellDump, *, disturbances: int) -> None:
        self.store = store
        self.disturbances = disturbances
        self.records = Records(self)  # type: ignore[arg-type]
        self.records.sinks = False

    def note(self, *_: object) -> None: ...

    def messages(self) -> Sequence[Message]:
        return self.store.outbox


async def _read(store: Any, text: str) -> Sequence[Row]:
    return await store.database.run("dump", lambda: _once(text), lane=Lane.READ)  # type: ignore[no-any-return]


def _once(text: str) -> Verb[Sequence[Row]]:
    rows, _ = yield Statement(text)
    return rows
