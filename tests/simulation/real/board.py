"""The board: what everybody knows of the cells of a crash matrix while it runs, and what the world noted of each.

A cell is one canonical instance and the one crash that is planned for it: at one commit boundary, before it or after
it. A boundary of an instance is any transaction that changes it or one of its children for a worker: the start,
commits, commits inside `ctx.session`, claims. It is known by its *marks*, what it does (`ActivityCompleted` of a call,
the second park), not by its number: whose process dies takes others with it, and their numbers shift.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edda.core.commit import Batch, BatchOutcome, Commit, End, Stay, Verdict
from edda.core.history import Kind, WorkerId
from edda.storage.port import Reaped
from tests.simulation.canonical import ASKED, Canonical, answering
from tests.simulation.faults import CRASHES, Fault

ACCEPTED: Final = frozenset({Verdict.COMMITTED, Verdict.WOKEN})
CHANCY: Final = frozenset({"Park", "claim"})
ANSWERS: Final = frozenset({Kind.ACTIVITY_COMPLETED, Kind.ACTIVITY_FAILED, Kind.COMPENSATION_EXECUTED})


class Entry(NamedTuple):
    """The code of an activity or compensation was entered."""

    instance_id: str
    call_id: str
    worker_id: str
    attempt: int
    name: str
    late: bool
    """Its completion was durable already."""


class Mark(NamedTuple):
    """Something that a transaction does to an instance."""

    suffix: str
    """Of the instance: empty for the cell's own, `/...` for a child, or for what an event of it started."""
    what: str
    nth: int = 1


Boundary = frozenset[Mark]


@dataclass(slots=True, kw_only=True, eq=False)
class Cell:
    """One instance of the matrix."""

    canonical: Canonical
    id: str
    boundary: Boundary = frozenset()
    number: int = 0
    fault: Fault | None = None
    """None: no crash is planned."""
    passed: list[Boundary] = field(default_factory=list[Boundary])
    fired: str = ""
    """The kind of boundary at which its crash came."""
    hits: int = 0
    """Deaths of processes that held it or one of its children, or were about to; its own crash included."""
    takeovers: Counter[str] = field(default_factory=Counter[str])
    """Instance -> how often it was freed from the dead."""
    repairs: Counter[str] = field(default_factory=Counter[str])
    """Instance -> how often a person let it go on."""
    over: bool = False
    """As far as the world knows; the database has the last word."""
    entries: list[Entry] = field(default_factory=list[Entry])
    answered: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    violations: list[str] = field(default_factory=list[str])
    _done: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """(suffix, what) -> how often it is durable."""
    _parked: set[str] = field(default_factory=set[str])

    def __str__(self) -> str:
        where = f"{self.fault} boundary {self.number} ({self.fired or 'not reached'})" if self.fault else "no crash"
        return f"{self.canonical.workflow.name}, {where}, {self.hits} deaths"

    @property
    def may_be_missed(self) -> bool:
        """How often an instance parks depends on who is faster; what it records does not."""
        return all(mark.what in CHANCY or mark.what.startswith("wait ") for mark in self.boundary)

    def again(self) -> Cell:
        """The same crash, for another instance."""
        return Cell(
            canonical=self.canonical,
            id=f"{self.id}-again",
            boundary=self.boundary,
            number=self.number,
            fault=self.fault,
        )

    def suffix_of(self, instance_id: str) -> str:
        """What tells it from the others of the cell, the same in each of its runs."""
        return instance_id.removeprefix(self.id) if instance_id.startswith(self.id) else f"/{ASKED.workflow}"

    def started(self) -> Boundary:
        return frozenset({Mark("", "start")})

    def written(self, commit: Commit, *, where: str) -> Boundary:
        """The marks of a commit; `where` tells a `ctx.session` from the group commit."""
        suffix = self.suffix_of(commit.instance_id)
        counted: Counter[tuple[str, str]] = Counter()
        whats = [f"{where} {record.kind} {record.call_id}" for record in commit.records]
        if not isinstance(commit.row, Stay):
            whats.append(type(commit.row).__name__)
        whats += [f"wait {wait.call_id}" for wait in commit.waits]  # which may be all that is written
        for what in whats:
            counted[suffix, what] += 1
        return frozenset(
            Mark(suffix, what, self._done[suffix, what] + count) for (suffix, what), count in counted.items()
        )

    def claimed(self, instance_id: str) -> Boundary:
        """A claim goes on with what was parked, or it follows a crash, and then it has no mark."""
        suffix = self.suffix_of(instance_id)
        return frozenset({Mark(suffix, "claim", self._done[suffix, "Park"])}) if suffix in self._parked else frozenset()

    def pass_boundary(self, boundary: Boundary) -> Fault | None:
        if boundary:
            self.passed.append(boundary)
        return self.fault if not self.fired and boundary & self.boundary else None

    def is_durable(self, boundary: Boundary) -> None:
        for mark in boundary:
            self._done[mark.suffix, mark.what] = max(self._done[mark.suffix, mark.what], mark.nth)
            if mark.what == "Park":
                self._parked.add(mark.suffix)
            elif mark.what == "claim":
                self._parked.discard(mark.suffix)


@dataclass(slots=True)
class Board:
    """All cells, by the id of their instance."""

    cells: dict[str, Cell]
    deaths: int = 0
    crashes: Counter[tuple[str, Fault]] = field(default_factory=Counter[tuple[str, Fault]])
    """(kind of boundary, fault) -> how many crashes came there."""
    killed: dict[str, float] = field(default_factory=dict[str, float])
    """Workers whose process died, and when."""
    answering: dict[str, str] = field(default_factory=dict[str, str])
    """What an event started, or will start -> the cell of who sent it."""
    delays: list[float] = field(default_factory=list[float])
    """Seconds from a death until somebody freed what the dead had held."""

    def cells_of(self, ids: Iterable[str]) -> list[Cell]:
        """The cells that these instances belong to."""
        return list(dict.fromkeys(self.cells[self.cell_id_of(instance_id)] for instance_id in ids))

    def cell_id_of(self, instance_id: str) -> str:
        """A child's id begins with its parent's; what an event started belongs to who sent that."""
        return self.answering.get(instance_id, instance_id.partition("/")[0])

    def marks_of(self, batch: Batch, *, where: str = "write") -> dict[str, Boundary]:
        """What a batch does to each cell."""
        found: dict[str, Boundary] = defaultdict(frozenset)
        for new in batch.starts:
            (cell,) = self.cells_of([new.id])
            found[cell.id] |= cell.started()
        for commit in batch.commits:
            (cell,) = self.cells_of([commit.instance_id])
            found[cell.id] |= cell.written(commit, where=where)
            for started in filter(None, (answering(post.event) for post in commit.posts)):
                self.answering[started] = cell.id
        return found

    def marks_of_claims(self, ids: Iterable[str]) -> dict[str, Boundary]:
        found: dict[str, Boundary] = defaultdict(frozenset)
        for instance_id in ids:
            (cell,) = self.cells_of([instance_id])
            found[cell.id] |= cell.claimed(instance_id)
        return found

    def pass_boundary(self, operation: str, marks: Mapping[str, Boundary]) -> Fault | None:
        """A transaction that does this is about to be committed; what happens to the process that writes it."""
        faults = {cell_id: self.cells[cell_id].pass_boundary(boundary) for cell_id, boundary in marks.items()}
        fault = min(filter(None, faults.values()), key=CRASHES.index, default=None)
        for cell_id, planned in faults.items():
            if fault is not None and planned is fault:
                self.cells[cell_id].fired = operation
                self.crashes[operation, fault] += 1
        return fault

    def died(self, workers: Iterable[str], held: Iterable[str]) -> None:
        self.deaths += 1
        self.killed.update(dict.fromkeys(workers, time.monotonic()))
        for cell in self.cells_of(held):
            cell.hits += 1

    def entered(self, entry: Entry) -> None:
        (cell,) = self.cells_of([entry.instance_id])
        cell.entries.append(entry._replace(late=(entry.instance_id, entry.call_id) in cell.answered))

    def is_durable(self, marks: Mapping[str, Boundary]) -> None:
        for cell_id, boundary in marks.items():
            self.cells[cell_id].is_durable(boundary)

    def written(self, batch: Batch, outcome: BatchOutcome) -> None:
        for commit, verdict in zip(batch.commits, outcome.verdicts, strict=True):
            self.committed(commit, verdict)

    def committed(self, commit: Commit, verdict: Verdict) -> None:
        """This is durable, whether or not the process lives to hear of it."""
        if verdict not in ACCEPTED:
            return
        (cell,) = self.cells_of([commit.instance_id])
        for record in commit.records:
            if record.kind in ANSWERS:
                cell.answered.add((commit.instance_id, record.call_id))
        if isinstance(commit.row, End) and commit.instance_id == cell.id:
            cell.over = True

    def reaped(self, dead: WorkerId, reaped: Reaped) -> None:
        if dead in self.killed and (reaped.freed or reaped.quarantined):
            self.delays.append(time.monotonic() - self.killed[dead])
        for instance_id in (*reaped.freed, *reaped.quarantined):
            (cell,) = self.cells_of([instance_id])
            cell.takeovers[instance_id] += 1
            cell.over = cell.over or (instance_id == cell.id and instance_id in reaped.quarantined)
