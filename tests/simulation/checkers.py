"""The invariants of a run, checked while it happens and once more at its end. Each violation names its invariant.

A *dump* is taken after every change of the database: what changed since the dump before must be a legal step. At the
end each history is replayed offline, by code of its own: same calls, same result, and every incarnation of the body
must have seen what that replay sees, as far as it was recorded.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edda.activity import activities
from edda.compensation import compensations
from edda.core.commit import Commit, End, Undo, Verdict
from edda.core.history import COMPLETIONS, HistoryEvent, InstanceId, Kind, WorkerId
from edda.core.journal import Journal
from edda.core.lifecycle import ENDED, LAST_EVENT, SET_ASIDE, TRANSITIONS, Status
from edda.core.retry import DEFAULT_RETRY_POLICY, RetryPolicy
from edda.engine.body_run import BodyRun
from edda.engine.codec import SignatureCodec, Stored
from edda.engine.replies import reply_to
from edda.storage.port import InstanceRow
from edda.workflow import workflows
from tests.simulation import handling
from tests.simulation.mail_checks import MailChecks

if TYPE_CHECKING:
    from tests.simulation.world import Node, World

ACCEPTED: Final = frozenset({Verdict.COMMITTED, Verdict.WOKEN})
TERMINAL_KINDS: Final = frozenset(kind.value for kind in LAST_EVENT.values())
ANSWERED: Final = frozenset(
    {Kind.ACTIVITY_COMPLETED, Kind.ACTIVITY_FAILED, Kind.ACTIVITY_UNKNOWN}
    | {Kind.TIMER_FIRED, Kind.EVENT_SENT, Kind.CHILD_STARTED, Kind.COMPENSATION_REGISTERED}
    | {Kind.EVENT_RECEIVED, Kind.EVENT_TIMED_OUT}
    | {Kind.CHILD_COMPLETED, Kind.CHILD_FAILED, Kind.CHILD_CANCELLED, Kind.COMPENSATION_EXECUTED}
)
VIOLATIONS_MAX: Final = 20
ATTEMPT_FAILED: Final = frozenset({Kind.ACTIVITY_ATTEMPT_FAILED, Kind.COMPENSATION_ATTEMPT_FAILED})
SESSIONS: Final = frozenset(
    {"session", "session_flaky", "saga_session", "teller_session", "canon_effect", "canon_book_row"}
)
"""Activities that write through `ctx.session`."""
FAILURES: Final = ATTEMPT_FAILED | {Kind.ACTIVITY_FAILED, Kind.COMPENSATION_FAILED}
DEFECTS: Final = ("NameError", "TypeError", "AttributeError", "KeyError", "AssertionError", "IndexError")
"""What no kitchen sink raises on purpose."""
EXPECTED_ERRORS: Final = ("Flaky", "TerminalError", "ActivityTimeoutError", "nothing of it was written")


class Incarnation:
    """One life of a body in the memory of one worker, and what it saw."""

    __slots__ = ("durable", "seen", "worker_id")

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.seen: list[Any] = []
        self.durable = 0
        """How much of it was seen when a commit that followed from it became durable."""


class Entry(NamedTuple):
    """The code of an activity or compensation was entered."""

    step: int
    worker_id: str
    stale: bool
    """By a worker that did not hold the instance any more."""
    attempt: int
    at_us: int
    name: str
    arguments: Any


class Records:
    """What happened in one world."""

    def __init__(self, world: World) -> None:
        self.violations: list[str] = []
        self.sinks = True
        """The instances are kitchen sinks: which activities leave rows and messages is known by name."""
        self.mail = MailChecks(world, self)
        self._world = world
        self._step = 0
        self._rows: dict[InstanceId, InstanceRow] = {}
        self._histories: dict[InstanceId, list[HistoryEvent]] = {}
        self._recorded_at: dict[tuple[str, str], int] = {}
        """(instance, call) -> the step at which its answer was recorded."""
        self._entries: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        self._incarnations: dict[str, list[Incarnation]] = defaultdict(list)
        self._latest: dict[tuple[str, str], Incarnation] = {}
        self._oracle = Incarnation(ORACLE)
        self._dead: set[str] = set()

    def violate(self, invariant: str, text: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(f"{invariant}: {text}")
            self._world.note(None, f"VIOLATION {invariant}: {text}")

    # -- user code ---------------------------------------------------------------------------------------------------

    def entered_body(self, instance_id: str, worker_id: str) -> list[Any]:
        incarnation = Incarnation(worker_id)
        if worker_id != ORACLE:
            self._incarnations[instance_id].append(incarnation)
            self._latest[instance_id, worker_id] = incarnation
        else:
            self._oracle = incarnation
        return incarnation.seen

    def entered(self, instance_id: str, call_id: str, worker_id: str, attempt: int, name: str, arguments: Any) -> None:
        self._step += 1
        row = self._world.store.rows.get(InstanceId(instance_id))
        stale = row is None or row.owner != worker_id
        now_us = self._world.store.now_us()
        entry = Entry(self._step, worker_id, stale, attempt, now_us, name, arguments)
        self._entries[instance_id, call_id].append(entry)
        if stale:
            return
        self._check_acknowledged(instance_id, call_id, worker_id)
        if (instance_id, call_id) in self._recorded_at:
            self.violate("I12", f"{instance_id} {call_id} was entered again after its completion was recorded")
        for event in reversed(self._world.store.history[InstanceId(instance_id)]):
            if event.call_id == call_id and event.kind in ATTEMPT_FAILED:
                if now_us < event.at_us + event.details()["delay_us"]:
                    self.violate("I13", f"{instance_id} {call_id}: an attempt came before its back-off was over")
                break

    def _check_acknowledged(self, instance_id: str, call_id: str, worker_id: str) -> None:
        """No effect begins before what the body knew when it asked for it is durable."""
        node = self._world.node_of(worker_id)
        worker = node.engine.worker if node is not None and node.engine is not None else None
        driver = worker.drivers.get(InstanceId(instance_id)) if worker is not None and worker.id == worker_id else None
        if driver is None:
            return
        durable = len(self._world.store.history[InstanceId(instance_id)])
        for event in driver._instance.journal.events[durable:]:
            # A session's record is drafted while its COMMIT is under way; the body has not seen it.
            if event.kind in COMPLETIONS and event.name not in SESSIONS:
                self.violate("I17", f"{instance_id} {call_id} began before {event.kind} {event.call_id} was durable")
                return

    # -- every change of the database --------------------------------------------------------------------------------

    def before(self, commits: Sequence[Commit]) -> list[InstanceRow | None]:
        return [self._world.store.rows.get(commit.instance_id) for commit in commits]

    def written(
        self,
        node: Node,
        worker: WorkerId,
        commits: Sequence[Commit],
        verdicts: Sequence[Verdict],
        before: Sequence[InstanceRow | None],
    ) -> None:
        """A transaction of a worker is durable. `before`: the rows of its instances as they were."""
        self.mail.writer = worker
        for commit, verdict, row in zip(commits, verdicts, before, strict=True):
            if verdict is Verdict.CLAIM_LOST:
                # A living worker loses a claim only by its own park or end, and is told of that.
                self.violate("I43", f"{commit.instance_id}: {worker[-8:]} lives, and wrote what was written already")
            if verdict not in ACCEPTED:
                continue
            incarnation = self._latest.get((commit.instance_id, worker))
            # Once a cancel is asked for, what is written may come without the body: it says nothing of what that saw.
            cancelling = row is not None and row.cancel_requested_at_us is not None
            if incarnation is not None and commit.records and not cancelling:
                incarnation.durable = len(incarnation.seen)
            if isinstance(commit.row, End | Undo):
                # The body is over, or dropped with what was refused: what this worker writes of it later says nothing.
                self._latest.pop((commit.instance_id, worker), None)
            if row is None or row.owner != worker or row.claim != commit.claim:
                self.violate(
                    "I16",
                    f"{commit.instance_id}: a write under claim {commit.claim} of {worker[-8:]} was accepted, while "
                    + (f"{row.owner and row.owner[-8:]} held claim {row.claim}" if row else "there was no row"),
                )
            for record in commit.records:
                if record.claim != commit.claim:
                    self.violate("I2", f"{commit.instance_id}: a row of claim {record.claim} in one of {commit.claim}")
        self.changed()

    def changed(self) -> None:
        """Take a dump: whatever differs from the one before must be a legal step."""
        self._step += 1
        store = self._world.store
        for worker, known_worker in store.workers.items():
            if not known_worker.alive:
                self._dead.add(worker)
            elif worker in self._dead:
                self.violate("I18", f"worker {worker[-8:]} was dead, and lives again")
        for instance_id, row in store.rows.items():
            history = store.history[instance_id]
            known = self._histories.get(instance_id)
            if known is None:
                known = self._histories[instance_id] = []
            if len(history) != len(known):
                self._grown(instance_id, known, history)
            before = self._rows.get(instance_id)
            if before is not row:
                self._rows[instance_id] = row
                self._check_row(before, row, history)

    def _grown(self, instance_id: InstanceId, known: list[HistoryEvent], history: list[HistoryEvent]) -> None:
        if len(history) < len(known):
            self.violate("I3", f"{instance_id}: history shrank from {len(known)} to {len(history)}")
        before = self._rows.get(instance_id)
        if before is not None and before.status in ENDED and history[len(known)].kind != Kind.RETRY_REQUESTED:
            self.violate("I6", f"{instance_id}: {history[len(known)].kind} after it had ended")
        for event in history[len(known) :]:
            if event.kind in ANSWERED or event.kind == Kind.COMPENSATION_FAILED:
                self._recorded_at[instance_id, event.call_id] = self._step
            elif event.kind == Kind.RETRY_REQUESTED:
                for failed in [each for each in known if each.kind == Kind.COMPENSATION_FAILED]:
                    self._recorded_at.pop((instance_id, failed.call_id), None)
            known.append(event)
            self.mail.grown(instance_id, event)

    def _check_row(self, before: InstanceRow | None, row: InstanceRow, history: list[HistoryEvent]) -> None:
        last = next((event.kind for event in reversed(history)), None)
        if (row.status in ENDED) != (last in TERMINAL_KINDS) or (
            row.status in ENDED and last != LAST_EVENT[row.status]
        ):
            self.violate("I5", f"{row.id} is {row.status}, and its history ends with {last}")
        cancelling = row.cancel_requested_at_us is not None
        if row.owner is not None and row.status in (ENDED if cancelling else ENDED | SET_ASIDE):
            self.violate("I5", f"{row.id} is {row.status} and owned")
        if row.status is Status.NONDETERMINISTIC:
            self.violate("I11", f"{row.id} is set aside as nondeterministic: {row.error}")
        elif row.status is Status.QUARANTINED and row.error and "simulated" not in row.error and row.crashes < 3:
            self.violate("I52", f"{row.id} is quarantined: {row.error}")
        if before is None:
            return
        if row.status is not before.status:
            self.mail.row_changed(row)
        if row.claim < before.claim or row.claim > before.claim + 1:
            self.violate("I2", f"{row.id}: claim went from {before.claim} to {row.claim}")
        if row.wakes < before.wakes:
            self.violate("I26", f"{row.id}: wakes went from {before.wakes} to {row.wakes}")
        aside = before.status in SET_ASIDE and cancelling  # what was set aside is undone when it is cancelled
        legal = TRANSITIONS[before.status] | (ENDED if aside else frozenset())
        if row.status is not before.status and row.status not in legal:
            self.violate("I6", f"{row.id}: {before.status} became {row.status}")
        if before.status in ENDED and row.status is before.status:
            self.violate("I6", f"{row.id} changed after it was {before.status}")
        never_due = row.owner is None and row.claimable_at_us is None and row.status not in ENDED | SET_ASIDE
        if never_due and not row.reason.startswith(("child ", "event ")):
            self.violate("I26", f"{row.id} is {row.status} ({row.reason}), unowned, and never due")

    # -- the end -----------------------------------------------------------------------------------------------------

    def check_end(self) -> None:
        self.changed()
        store = self._world.store
        effects = Counter(row[1:3] for row in store.effects)
        messages = Counter((message.instance_id, message.seq) for message in self._world.messages())
        for instance_id, row in store.rows.items():
            history = store.history[instance_id]
            if history != self._histories[instance_id]:
                self.violate("I3", f"{instance_id}: what was written once has changed")
            self._check_order(instance_id, history)
            self._check_attempts(instance_id, history)
            if row.error and any(f'"{name}"' in row.error for name in DEFECTS):
                self.violate("sink", f"{instance_id} ended with {row.error}")
            if self.sinks:
                self._check_effects(instance_id, history, effects, messages)
            self._check_saga(row, history)
            self._check_cancel(row, history)
            self._check_family(row, history)
            self._check_replay(row, history)
        if self.sinks:
            self.mail.check_end()
            if self._world.scenario.orders:
                handling.check_end(self._world)
            if self._world.outside is not None:
                self._world.outside.checks.check_end()
        known = {event for event in effects if (event[0], event[1]) not in self._recorded_at}
        for instance_id, call_id in known:
            self.violate("I10", f"{instance_id} {call_id} left a row, and no record")

    def _check_order(self, instance_id: str, history: list[HistoryEvent]) -> None:
        if [event.seq for event in history] != list(range(1, len(history) + 1)):
            self.violate("I1", f"{instance_id}: seq is {[event.seq for event in history]}")
        claims = [event.claim for event in history]
        if claims != sorted(claims):
            self.violate("I2", f"{instance_id}: claims are {claims}")
        answers = Counter(event.call_id for event in history if event.kind in ANSWERED)
        for call_id, count in answers.items():
            if count > 1:
                self.violate("I4", f"{instance_id} {call_id} has {count} results")
        if history and history[0].kind != Kind.WORKFLOW_STARTED and any(e.kind in COMPLETIONS for e in history):
            self.violate("I1", f"{instance_id} does not begin with WorkflowStarted")

    def _check_attempts(self, instance_id: str, history: list[HistoryEvent]) -> None:
        failures: Counter[str] = Counter()
        names: dict[str, str] = {}
        for event in history:
            names[event.call_id] = event.name
            if event.kind in ATTEMPT_FAILED or event.kind in (Kind.ACTIVITY_FAILED, Kind.COMPENSATION_FAILED):
                failures[event.call_id] += 1
            elif event.kind == Kind.RETRY_REQUESTED:
                failures.clear()
            most = _policy_of(event).max_attempts
            if most is not None and failures[event.call_id] > most:
                self.violate("I13", f"{instance_id} {event.call_id} failed {failures[event.call_id]} times of {most}")
            if (
                self.sinks
                and event.output
                and event.kind in FAILURES
                and not any(name in event.output for name in EXPECTED_ERRORS)
            ):
                self.violate("I13", f"{instance_id} {event.call_id} failed with {event.output[:300]}")
            if event.kind in (Kind.ACTIVITY_FAILED, Kind.COMPENSATION_FAILED) and event.meta:
                metadata = event.details()["retry_metadata"]
                if metadata["total_attempts"] != failures[event.call_id]:
                    self.violate(
                        "I14",
                        f"{instance_id} {event.call_id} says {metadata['total_attempts']} attempts, and "
                        f"{failures[event.call_id]} failures are recorded",
                    )
                if metadata["exhausted"] and failures[event.call_id] != most:
                    self.violate(
                        "I13", f"{instance_id} {event.call_id} gave up after {failures[event.call_id]} of {most}"
                    )
        for (instance, call_id), entries in self._entries.items():
            if instance == instance_id:
                name = entries[0].name
                declared = activities.get(name) or compensations.get(name)
                policy = declared.retry_policy if declared is not None else None
                most = (policy or DEFAULT_RETRY_POLICY).max_attempts or 0
                retried = 1 + sum(event.kind == Kind.RETRY_REQUESTED for event in history)
                if len(entries) > most * retried + self._world.disturbances:
                    self.violate("I14", f"{instance_id} {call_id} was entered {len(entries)} times")

    def _check_effects(
        self,
        instance_id: str,
        history: list[HistoryEvent],
        effects: Counter[tuple[str, str]],
        messages: Counter[tuple[InstanceId, int]],
    ) -> None:
        for event in history:
            if event.kind == Kind.ACTIVITY_COMPLETED:
                writes = event.name in SESSIONS
                if effects[instance_id, event.call_id] != int(writes):
                    self.violate("I9", f"{instance_id} {event.call_id} left {effects[instance_id, event.call_id]} rows")
                expected = int(event.name in ("sender", "session_flaky"))
            else:
                expected = int(event.kind == Kind.EVENT_SENT and event.name == "body.sent")
                unsuccessful = event.kind in (Kind.ACTIVITY_FAILED, Kind.ACTIVITY_UNKNOWN)
                if unsuccessful and effects[instance_id, event.call_id]:
                    self.violate("I10", f"{instance_id} {event.call_id} failed and left a row")
            if messages[InstanceId(instance_id), event.seq] != expected:
                self.violate(
                    "I39",
                    f"{instance_id} {event.call_id or event.kind} has {messages[InstanceId(instance_id), event.seq]} "
                    f"messages in the outbox, not {expected}",
                )
        beyond = [key for key in messages if key[0] == instance_id and key[1] > len(history)]
        if beyond:
            self.violate("I39", f"messages without a record: {beyond}")

    def _check_saga(self, row: InstanceRow, history: list[HistoryEvent]) -> None:
        """What was completed with an undo is undone, newest first, each once; and its code ran with its arguments."""
        begun = next((event for event in history if event.kind == Kind.COMPENSATION_STARTED), None)
        owed = [
            f"undo/{event.call_id}"
            for event in history
            if event.kind in (Kind.ACTIVITY_COMPLETED, Kind.ACTIVITY_UNKNOWN, Kind.COMPENSATION_REGISTERED)
            and event.meta is not None
            and "undo" in json.loads(event.meta)
        ]
        owed.reverse()
        rounds: list[list[HistoryEvent]] = [[]]
        for event in history:
            if event.kind in (Kind.COMPENSATION_EXECUTED, Kind.COMPENSATION_FAILED):
                rounds[-1].append(event)
            elif event.kind == Kind.RETRY_REQUESTED:
                rounds.append([])
        undone: set[str] = set()
        for number, settled in enumerate(rounds):
            expected = [call_id for call_id in owed if call_id not in undone]
            found = [event.call_id for event in settled]
            complete = number < len(rounds) - 1 or row.status in ENDED
            if found != (expected if complete and begun else expected[: len(found)]):
                self.violate("I33", f"{row.id}: undone {found}, owed {expected}")
            undone |= {event.call_id for event in settled if event.kind == Kind.COMPENSATION_EXECUTED}
        if begun is None and owed and row.status in (Status.FAILED, Status.CANCELLED):
            self.violate("I33", f"{row.id} is {row.status}, and {owed} were not undone")
        if row.status is Status.COMPLETED and begun is not None:
            self.violate("I33", f"{row.id} is completed after undoing had begun")
        failed = {event.call_id for event in rounds[-1] if event.kind == Kind.COMPENSATION_FAILED}
        if row.status in ENDED and bool(failed) != (row.status is Status.COMPENSATION_FAILED):
            self.violate("I36", f"{row.id} is {row.status}, and {failed or 'nothing'} could not be undone")
        self._check_undo_code(row, history, owed, undone)

    def _check_undo_code(
        self, row: InstanceRow, history: list[HistoryEvent], owed: Sequence[str], undone: set[str]
    ) -> None:
        """The code behind it: entered at least once for each one undone, in the order of history, as often as told."""
        entered = {
            call_id: entries[0].step
            for (instance, call_id), entries in self._entries.items()
            if instance == row.id and call_id.startswith("undo/")
        }
        for call_id in undone - entered.keys():
            self.violate("I33", f"{row.id} {call_id} is recorded as executed, and its code never ran")
        for call_id in entered.keys() - set(owed):
            self.violate("I35", f"{row.id} {call_id} was entered, and was not owed")
        order = [call_id for call_id in owed if call_id in entered]
        if sorted(order, key=entered.__getitem__) != order:
            self.violate("I33", f"{row.id}: compensations were entered out of order")
        if not self.sinks:
            return
        arguments = {
            f"undo/{event.call_id}": json.loads(event.input or "{}")["args"][0]
            for event in history
            if f"undo/{event.call_id}" in entered and event.input and json.loads(event.input)["args"]
        }
        for call_id, number in arguments.items():
            for entry in self._entries[row.id, call_id]:
                if entry.arguments != (number,):
                    self.violate("I33", f"{row.id} {call_id} was called with {entry.arguments}, not {number}")

    def _check_cancel(self, row: InstanceRow, history: list[HistoryEvent]) -> None:
        if row.cancel_requested_at_us is None:
            if row.status is Status.CANCELLED:
                self.violate("I37", f"{row.id} is cancelled, and nobody asked for it")
        elif row.status in ENDED and row.status not in (Status.CANCELLED, Status.COMPENSATION_FAILED):
            self.violate("I37", f"{row.id} is {row.status} although a cancel was accepted")

    def _check_family(self, row: InstanceRow, history: list[HistoryEvent]) -> None:
        rows = self._world.store.rows
        for event in history:
            if event.kind == Kind.CHILD_STARTED:
                details = event.details()
                child = rows.get(details["instance_id"])
                if child is None:
                    self.violate("child", f"{row.id} started {details['instance_id']}, and it is not there")
                elif not details["detached"] and row.status in (Status.FAILED, Status.CANCELLED):
                    asked = child.cancel_requested_at_us is not None
                    if not asked and child.status not in ENDED | {Status.COMPENSATING}:
                        self.violate("child", f"{row.id} is {row.status}, and its child {child.id} lives on")
            elif event.kind in (Kind.CHILD_COMPLETED, Kind.CHILD_FAILED, Kind.CHILD_CANCELLED):
                child = rows.get(event.details()["instance_id"])
                told = {
                    Kind.CHILD_COMPLETED: (Status.COMPLETED,),
                    Kind.CHILD_FAILED: (Status.FAILED, Status.COMPENSATION_FAILED),
                    Kind.CHILD_CANCELLED: (Status.CANCELLED,),
                }[Kind(event.kind)]
                repaired = (
                    child is not None
                    and self._histories[child.id][-1].seq
                    and any(each.kind == Kind.RETRY_REQUESTED for each in self._histories[child.id])
                )
                if child is None or (child.status not in told and not repaired):
                    self.violate(
                        "child", f"{row.id} heard {event.kind} of {child and child.id}: {child and child.status}"
                    )
        if row.parent_id is not None and row.parent_id not in rows:
            self.violate("child", f"{row.id} has no parent")

    # -- replay ------------------------------------------------------------------------------------------------------

    def _check_replay(self, row: InstanceRow, history: list[HistoryEvent]) -> None:
        workflow = workflows.get(row.workflow)
        if not history or history[0].kind != Kind.WORKFLOW_STARTED or workflow is None:
            return
        problem, result = replay(self._world, row, history)
        if problem:
            self.violate("replay", f"{row.id}: {problem}")
            return
        seen = self._oracle.seen
        if row.status is Status.COMPLETED:
            codec = SignatureCodec(workflow.function, skip_first=True, validate=True).result
            stored = codec.decode(Stored(row.output, row.blob))
            if stored != result:
                self.violate("replay", f"{row.id}: its result is {stored!r}, a replay gives {result!r}")
        for number, incarnation in enumerate(self._incarnations[row.id]):
            durable = incarnation.seen[: incarnation.durable]
            if durable != seen[: len(durable)]:
                where = next(
                    (n for n, (one, other) in enumerate(zip(durable, seen, strict=False)) if one != other), len(seen)
                )
                self.violate(
                    "I11",
                    f"{row.id}: incarnation {number} on {incarnation.worker_id[-8:]} saw {durable[where : where + 2]} "
                    f"at {where}, a replay sees {seen[where : where + 2]}",
                )


ORACLE: Final = "oracle"


def _policy_of(event: HistoryEvent) -> RetryPolicy:
    declared = compensations.get(event.name) if event.call_id.startswith("undo/") else activities.get(event.name)
    return (declared.retry_policy if declared is not None else None) or DEFAULT_RETRY_POLICY


class _OracleApp:
    """What stands for the app while a history is replayed offline."""

    def __init__(self, world: World) -> None:
        self.world = _OracleNotes(world)


class _OracleNotes:
    """The notebook of the oracle; it goes into no log."""

    def __init__(self, world: World) -> None:
        self._records = world.records

    def entered_body(self, instance_id: str, worker_id: str) -> list[Any]:
        return self._records.entered_body(instance_id, ORACLE)

    def not_before(self, instance_id: str, due_us: int) -> None:
        pass

    def wanted(self, instance_id: str, call_id: str, worker_id: str, criteria: Any, due_us: int | None) -> None:
        pass


def replay(world: World, row: InstanceRow, history: list[HistoryEvent]) -> tuple[str, Any]:
    """Run the workflow function over its history, with nothing but what was recorded: (problem, result)."""
    workflow = workflows.get(row.workflow)
    assert workflow is not None
    journal = Journal.of(history)
    app: Any = _OracleApp(world)
    body = BodyRun(
        instance_id=row.id,
        workflow=workflow,
        worker_id=ORACLE,
        app=app,
        hooks=None,
        journal=journal,
        started_us=history[0].at_us,
        payload_bytes_max=1 << 20,
    )
    body.loop.quiet = True
    body.enter(row.input)
    try:
        body.loop.drain()
        while (event := journal.next_completion()) is not None and not body.loop.root.done():
            if event.kind == Kind.TIMER_FIRED and event.name == "timer":
                body.loop.fire(event.call_id, at_us=event.at_us)
            else:
                call = body.call_for(event)
                reply = reply_to(call, event)
                body.answer(event, call, reply.value, reply.error)
            body.loop.drain()
        root = body.loop.root
        if body.new_patches and row.status in (Status.COMPLETED, Status.FAILED):
            return f"patches {body.new_patches} are not recorded", None
        if row.status in (Status.COMPLETED, Status.FAILED) and not root.done():
            return f"it is {row.status}, and a replay waits for {body._pending_in_words()}", None
        raised = root.done() and (root.cancelled() or root.exception() is not None)
        if row.status is Status.COMPLETED:
            return ("it completed, and a replay raises", None) if raised else ("", root.result())
        if row.status is Status.FAILED and not raised:
            return "it failed, and a replay does not", None
    except Exception as error:
        return f"{type(error).__name__}: {error}", None
    finally:
        body.loop.evict()
    return "", None
