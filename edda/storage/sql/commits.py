"""Writing: a batch of commits, the creation of instances, and what became of a batch whose answer was lost.

Laws:
- Every transaction that writes for a worker reads that worker's row first, with a lock that a reaper waits for.
- Locks are taken in the order worker, instances by id.
- A history row that is there already makes the insert fail, and the transaction with it: `write` is then tried again
  without the commits that `taken` names. No row is ever inserted "if absent" into history.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from edda.core.commit import (
    Batch,
    BatchOutcome,
    Commit,
    Creation,
    NewInstance,
    OutboxMessage,
    Park,
    Stay,
    Undo,
    Verdict,
)
from edda.core.history import HistoryEvent, InstanceId, WorkerId
from edda.core.lifecycle import Status
from edda.exceptions import StorageError
from edda.storage.port import Fenced
from edda.storage.sql.dialects.base import Dialect, Problem
from edda.storage.sql.judge import ENDED_COLUMNS, LOCKED_COLUMNS, MOVED_COLUMNS, judge, targets
from edda.storage.sql.rows import NEW_INSTANCE_COLUMNS, inbox_row, insert, new_instance_row, outbox_row, term_rows
from edda.storage.sql.schema import (
    HISTORY_COLUMNS,
    INBOX,
    INBOX_COLUMNS,
    OUTBOX_COLUMNS,
    SEARCH,
    SEARCH_COLUMNS,
    WAIT,
    WAIT_COLUMNS,
)
from edda.storage.sql.verb import Row, Statement, Verb

INSERT_HISTORY: Final = insert("edda_history", HISTORY_COLUMNS)
INSERT_OUTBOX: Final = insert("edda_outbox", OUTBOX_COLUMNS)
INSERT_WAIT: Final = insert("edda_wait", WAIT_COLUMNS)
INSERT_EVENT: Final = insert("edda_inbox", INBOX_COLUMNS)
INSERT_INSTANCE: Final = insert("edda_instance", NEW_INSTANCE_COLUMNS)
INSERT_TERM: Final = insert("edda_search", SEARCH_COLUMNS)
ACCEPTED: Final = frozenset({Verdict.COMMITTED, Verdict.WOKEN})
CREATE_ATTEMPTS_MAX: Final = 5
PAYLOAD_PER_STATEMENT: Final = 1_000_000
"""Escaped, that is at most a quarter of MariaDB's default `max_allowed_packet`. Inserts are split by the driver."""
KEYS_PER_STATEMENT: Final = 200
"""Conditions on pairs are chained with OR, and SQLite allows 1,000 levels."""


class StartsRaced(Exception):
    """Another transaction created one of the new instances a moment ago; look first, and it will be seen."""


def write(dialect: Dialect, worker: WorkerId, batch: Batch, *, look_first: bool = False) -> Verb[BatchOutcome]:
    """Write a batch in one transaction. Raises `Fenced`; the duplicate of a history row is the driver's error.

    `look_first`: find out which of the starts exist before inserting them. Without it, `StartsRaced` says that some do.
    """
    own = dialect.write(worker, batch)
    if own is not None:
        return (yield from own)
    now_us = yield from fence(dialect, worker)
    verdicts = yield from _write_commits(dialect, worker, batch.commits, now_us)
    creations = yield from _write_starts(dialect, batch.starts, now_us, look_first=look_first)
    return BatchOutcome(now_us=now_us, verdicts=verdicts, creations=creations)


def fence(dialect: Dialect, worker: WorkerId) -> Verb[int]:
    """The database's time, if the worker is alive; a reaper now waits for this transaction."""
    rows, _ = yield Statement(
        f"select state, {dialect.now} from edda_worker where id = ?{dialect.fence_lock}",
        (worker,),
    )
    if not rows or rows[0][0] != "alive":
        raise Fenced
    return int(rows[0][1])


def _write_commits(
    dialect: Dialect, worker: WorkerId, commits: Sequence[Commit], now_us: int
) -> Verb[tuple[Verdict, ...]]:
    changing = targets(commits)
    verdicts = [Verdict.COMMITTED] * len(commits)
    accepted: Sequence[Commit] = commits
    if changing:
        locked = yield from lock(dialect, changing)
        judgement = judge(worker, commits, locked, now_us)
        verdicts = judgement.verdicts
        accepted = [commit for commit, verdict in zip(commits, verdicts, strict=True) if verdict in ACCEPTED]
        # The rows that moved: parked, woken, cancelled, turned to undoing.
        if judgement.moved:
            yield dialect.update_many("edda_instance", MOVED_COLUMNS, judgement.moved)
        # The rows that ended or were set aside, with their outcome.
        for some in _of_bounded_size(judgement.ended):
            yield dialect.update_many("edda_instance", ENDED_COLUMNS, some)
    records = [record for commit in accepted for record in commit.records]
    if records:
        yield Statement(INSERT_HISTORY, records, many=True)
    messages = [outbox_row(message) for commit in accepted for message in commit.outbox]
    if messages:
        yield Statement(INSERT_OUTBOX, messages, many=True)
    yield from _write_waits(dialect, accepted)
    posts = [inbox_row(post.event, now_us + n) for commit in accepted for n, post in enumerate(commit.posts)]
    if posts:
        yield Statement(INSERT_EVENT + dialect.if_absent_in(INBOX), posts, many=True)
    children = [child for commit in accepted for child in commit.children]
    if children:
        yield from _write_children(dialect, children, now_us)
    return tuple(verdicts)


def _write_children(dialect: Dialect, children: Sequence[NewInstance], now_us: int) -> Verb[None]:
    """A child that exists was started by the same commit of an earlier claim, or is somebody else: it is left alone."""
    searched = [child.id for child in children if child.terms]
    known = (yield from existing(dialect, searched)) if searched else {}
    rows = [new_instance_row(child, now_us) for child in children]
    yield Statement(INSERT_INSTANCE + dialect.if_absent, rows, many=True)
    yield from _write_terms(dialect, [child for child in children if child.id not in known], now_us)


def _write_terms(dialect: Dialect, news: Sequence[NewInstance], now_us: int) -> Verb[None]:
    terms = term_rows(news, now_us)
    if terms:
        yield Statement(INSERT_TERM + dialect.if_absent_in(SEARCH), terms, many=True)


def _write_waits(dialect: Dialect, accepted: Sequence[Commit]) -> Verb[None]:
    """What these instances wait for from now on, and no longer."""
    bodies_over = sorted(commit.instance_id for commit in accepted if commit.no_waits_left)
    if bodies_over:
        yield Statement("delete from edda_wait where instance_id = ?", [(one,) for one in bodies_over], many=True)
    others = [commit for commit in accepted if not commit.no_waits_left]
    over = sorted((commit.instance_id, call_id) for commit in others for call_id in commit.waits_over)
    if over:
        yield Statement("delete from edda_wait where instance_id = ? and call_id = ?", over, many=True)
    waits = sorted((commit.instance_id, *wait) for commit in accepted for wait in commit.waits)
    if waits:
        yield Statement(INSERT_WAIT + dialect.or_replace(WAIT), waits, many=True)


def _of_bounded_size(rows: Sequence[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows in groups that fit into one packet of the server; a row alone always does."""
    group: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        weight = sum(len(value) for value in row if isinstance(value, str | bytes))
        if group and size + weight > PAYLOAD_PER_STATEMENT:
            yield group
            group, size = [], 0
        group.append(row)
        size += weight
    if group:
        yield group


def lock(dialect: Dialect, ids: Sequence[InstanceId]) -> Verb[Sequence[Row]]:
    """The rows of instances that are about to change, locked in the order of their ids."""
    condition, params = dialect.within("id", ids)
    rows, _ = yield Statement(
        f"select {', '.join(LOCKED_COLUMNS)} from edda_instance where {condition} order by id{dialect.lock}",
        params,
    )
    return rows


def _write_starts(
    dialect: Dialect, starts: Sequence[NewInstance], now_us: int, *, look_first: bool
) -> Verb[tuple[Creation, ...]]:
    if not starts:
        return ()
    known: dict[InstanceId, Creation] = {}
    if look_first:
        known = yield from existing(dialect, [new.id for new in starts])
    creations: list[Creation] = []
    absent: list[NewInstance] = []
    for new in starts:
        there = known.get(new.id)
        if there is None:
            absent.append(new)
            known[new.id] = _there(new)
        creations.append(there or _created(new))
    if absent:
        _, inserted = yield Statement(
            INSERT_INSTANCE + dialect.if_absent, [new_instance_row(new, now_us) for new in absent], many=True
        )
        if inserted != len(absent):
            raise StartsRaced
        yield from _write_terms(dialect, absent, now_us)
    return tuple(creations)


def _created(new: NewInstance) -> Creation:
    return Creation(created=True, workflow=new.workflow, args_hash=new.args_hash)


def _there(new: NewInstance) -> Creation:
    """What a second start with the same id in the same batch finds."""
    return Creation(created=False, workflow=new.workflow, args_hash=new.args_hash, owner=new.owner)


def existing(dialect: Dialect, ids: Sequence[InstanceId]) -> Verb[dict[InstanceId, Creation]]:
    """What a start with one of these ids would find."""
    condition, params = dialect.within("id", ids)
    rows, _ = yield Statement(
        f"select id, workflow, args_hash, status, owner from edda_instance where {condition}{dialect.latest}",
        params,
    )
    return {
        row[0]: Creation(created=False, workflow=row[1], args_hash=row[2], status=Status(row[3]), owner=row[4])
        for row in rows
    }


def create(dialect: Dialect, new: NewInstance) -> Verb[Creation]:
    """Create an instance if absent. It may run inside a user's transaction, which must never be aborted by it."""
    rows, _ = yield Statement(f"select {dialect.now}")
    now_us = int(rows[0][0])
    row = new_instance_row(new, now_us)
    for _ in range(CREATE_ATTEMPTS_MAX):
        if (yield from _insert_or_see(dialect, row)):
            yield from _write_terms(dialect, [new], now_us)
            return _created(new)
        known = yield from existing(dialect, [new.id])
        if new.id in known:
            return known[new.id]
        # It was forgotten between the two statements, and its id is free.
    raise StorageError(f"an instance '{new.id}' is in the way of a new one, and cannot be seen")


def _insert_or_see(dialect: Dialect, row: tuple[Any, ...]) -> Verb[bool]:
    """Insert if absent. Where that tells nothing, a duplicate key undoes the statement only, not the transaction."""
    if dialect.insert_tells:
        rows, _ = yield Statement(INSERT_INSTANCE + dialect.if_absent + " returning id", row)
        return bool(rows)
    try:
        yield Statement(INSERT_INSTANCE, row)
    except Exception as error:
        if dialect.problem(error) is not Problem.DUPLICATE:
            raise
        return False
    return True


# -- after failures -------------------------------------------------------------------------------------------------


def taken(dialect: Dialect, commits: Sequence[Commit]) -> Verb[frozenset[int]]:
    """The places of those commits whose history or outbox rows exist, in the database or earlier in the batch."""
    records = yield from _claims_in_history(dialect, [record for commit in commits for record in commit.records])
    messages = yield from _known_messages(dialect, [message for commit in commits for message in commit.outbox])
    found: set[int] = set()
    written: set[object] = {*records, *messages}
    for place, commit in enumerate(commits):
        keys: set[object] = {(record.instance_id, record.seq) for record in commit.records}
        keys |= {_message_key(message) for message in commit.outbox}
        if keys & written:
            found.add(place)
        else:
            written |= keys
    return frozenset(found)


def settle(dialect: Dialect, worker: WorkerId, batch: Batch) -> Verb[tuple[Verdict | None, ...]]:
    """What became of each commit, once nothing of the old transaction is under way any more."""
    # Waits for the lock that the old transaction holds on the same row until its end.
    rows, _ = yield Statement(f"select state from edda_worker where id = ?{dialect.lock}", (worker,))
    if not rows or rows[0][0] != "alive":
        raise Fenced
    commits = batch.commits
    last = [commit.records[-1] for commit in commits if commit.records]
    history = yield from _claims_in_history(dialect, last)
    messages = yield from _known_messages(dialect, [commit.outbox[-1] for commit in commits if commit.outbox])
    condition, params = dialect.within("id", [commit.instance_id for commit in commits])
    # How the instances stand now.
    rows, _ = yield Statement(
        f"select id, owner, claim, status, wakes from edda_instance where {condition}",
        params,
    )
    now = {row[0]: row for row in rows}
    return tuple(_settled(worker, commit, now.get(commit.instance_id), history, messages) for commit in commits)


def _settled(
    worker: WorkerId,
    commit: Commit,
    row: Row | None,
    history: dict[tuple[InstanceId, int], int],
    messages: set[tuple[InstanceId, int, int]],
) -> Verdict | None:
    """A worker that is alive loses a claim only by its own park or end; so "no longer mine" means "it happened"."""
    if commit.records:
        last = commit.records[-1]
        there = history.get((last.instance_id, last.seq)) == last.claim
    elif isinstance(commit.row, Stay):
        there = bool(commit.outbox) and _message_key(commit.outbox[-1]) in messages
    elif row is None:
        there = False
    elif isinstance(commit.row, Undo):
        there = row[2] == commit.claim and row[3] == Status.COMPENSATING
    else:
        there = (row[1], row[2]) != (worker, commit.claim)
    if not there:
        return None
    if isinstance(commit.row, Park) and row is not None:
        untouched = (row[1], row[2], row[4]) == (None, commit.claim, commit.row.seen_wakes)
        return Verdict.COMMITTED if untouched else Verdict.WOKEN
    return Verdict.COMMITTED


def _claims_in_history(dialect: Dialect, records: Sequence[HistoryEvent]) -> Verb[dict[tuple[InstanceId, int], int]]:
    """Which of these places in history are taken, and under which claim."""
    found: dict[tuple[InstanceId, int], int] = {}
    for start in range(0, len(records), KEYS_PER_STATEMENT):
        some = records[start : start + KEYS_PER_STATEMENT]
        condition = " or ".join(["(instance_id = ? and seq = ?)"] * len(some))
        rows, _ = yield Statement(
            f"select instance_id, seq, claim from edda_history where {condition}",
            tuple(value for record in some for value in (record.instance_id, record.seq)),
        )
        found.update({(row[0], row[1]): row[2] for row in rows})
    return found


def _known_messages(dialect: Dialect, messages: Sequence[OutboxMessage]) -> Verb[set[tuple[InstanceId, int, int]]]:
    """The keys of those messages that are in the outbox."""
    found: set[tuple[InstanceId, int, int]] = set()
    for start in range(0, len(messages), KEYS_PER_STATEMENT):
        some = messages[start : start + KEYS_PER_STATEMENT]
        condition = " or ".join(["(instance_id = ? and seq = ? and ordinal = ?)"] * len(some))
        rows, _ = yield Statement(
            f"select instance_id, seq, ordinal from edda_outbox where {condition}",
            tuple(value for message in some for value in _message_key(message)),
        )
        found.update((row[0], row[1], row[2]) for row in rows)
    return found


def _message_key(message: OutboxMessage) -> tuple[InstanceId, int, int]:
    return message.instance_id, message.seq, message.ordinal


def without(items: Iterable[Commit], places: Iterable[int]) -> tuple[Commit, ...]:
    """The commits that are not at these places."""
    gone = frozenset(places)
    return tuple(item for place, item in enumerate(items) if place not in gone)
