"""The outbox: leasing heads, settling them, and what people do with dead letters.

It must not know sinks or back-off. Laws:
- A claim looks for heads without a lock, and then locks them by their keys, looking again. What it saw as a head stays
  one until it is settled: rows of an instance become visible in the order of `seq`, so nothing comes before it.
- Two claims meet at the head's row: one has its lock, the other passes over it (SKIP LOCKED), and finds it no longer
  due when it looks again. So no instance is ever in two hands.
- What is due behind a head that is not would be read again by every claim. Where it fills a page it is *deferred* to
  the time of its head, under that head's lock; whoever settles a head makes the next one due.
- Rows are locked in the order of their keys; heads before what is behind them.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from edda.core.commit import OutboxMessage
from edda.core.history import InstanceId
from edda.storage.outbox import (
    OUTBOX_LIMIT_MAX,
    Again,
    Dead,
    DeadLetter,
    Delivered,
    GivenBack,
    LeasedMessage,
    OutboxClaims,
    OutboxState,
    Outcome,
    Settlement,
)
from edda.storage.sql.dialects.base import Dialect, First
from edda.storage.sql.rows import OUTBOX_LIST, insert, outbox_row
from edda.storage.sql.schema import OUTBOX, OUTBOX_COLUMNS
from edda.storage.sql.verb import Row, Statement, Verb

PAGE_MAX: Final = 2 * OUTBOX_LIMIT_MAX
"""Due rows that one claim looks at."""
UNKNOWN_HEAD_US: Final = 1_000_000
"""For so long rows are deferred whose head somebody else has locked: it may be settled at this very moment."""
KEY: Final = "instance_id, seq, ordinal"
MESSAGE_WIDTH: Final = len(OutboxMessage._fields)

Key = tuple[InstanceId, int, int]


class Head(NamedTuple):
    """The earliest pending message of an instance."""

    key: Key
    due_at_us: int
    bytes: int = 0
    """Of its data; known where a claim asked for it."""


# -- claiming ----------------------------------------------------------------------------------------------------------


def enqueue(dialect: Dialect, messages: Sequence[OutboxMessage]) -> Verb[None]:
    """Messages of nobody's history."""
    rows = [outbox_row(message) for message in messages]
    yield Statement(insert("edda_outbox", OUTBOX_COLUMNS) + dialect.if_absent_in(OUTBOX), rows, many=True)


def claim(
    dialect: Dialect, relayer: str, *, limit: int, lease_us: int, bytes_max: int, claim_key: int
) -> Verb[OutboxClaims]:
    """Lease heads that are due."""
    now_us = yield from _now(dialect)
    page = yield from _page(now_us)
    heads = yield from _heads(dialect, [key[0] for key in page])
    due = sorted((head for head in heads if head.due_at_us <= now_us), key=lambda head: head.due_at_us)
    locked = yield from _lock(dialect, [head.key for head in due[:limit]], bytes_too=True)
    free = [head for head in locked if head.due_at_us <= now_us]
    taken = _within(free, bytes_max)
    until_us = now_us + lease_us
    if taken:
        # They are this relayer's now.
        yield Statement(
            f"update edda_outbox set relayer = ?, claim_key = ?, due_at_us = ? where {_these(len(taken))}",
            (relayer, claim_key, until_us, *_flat(taken)),
        )
    full = len(page) == PAGE_MAX
    cut = len(due) > limit or len(taken) < len(free)
    if full:
        yield from _defer(dialect, page, heads, {key: until_us for key in taken}, now_us)
    leased = yield from _leased(taken, claim_key)
    next_due_us = yield from _next_due(now_us)
    return OutboxClaims(now_us=now_us, leased=leased, more=full or cut, next_due_us=next_due_us)


def _page(now_us: int) -> Verb[list[Key]]:
    """Some of what is due, the longest waiting first; no lock yet."""
    rows, _ = yield Statement(
        f"select {KEY} from edda_outbox where status = 'pending' and due_at_us <= ? order by due_at_us limit ?",
        (now_us, PAGE_MAX),
    )
    return [_key(row) for row in rows]


def _heads(dialect: Dialect, ids: Iterable[InstanceId]) -> Verb[list[Head]]:
    """The earliest pending message of each of these instances, if it has one."""
    distinct = list(dict.fromkeys(ids))
    if not distinct:
        return []
    first = First(
        table="edda_outbox",
        columns=f"{KEY}, due_at_us",
        by="instance_id",
        where="status = 'pending'",
        order="seq, ordinal",
        index=dialect.by_head_index,
    )
    text, params = dialect.first_of_each(first, distinct)
    rows, _ = yield Statement(text, params)
    return [_head(row) for row in rows]


def _lock(dialect: Dialect, keys: Sequence[Key], *, bytes_too: bool = False) -> Verb[list[Head]]:
    """Those of these rows that are still pending and that nobody else has locked, as they are now."""
    if not keys:
        return []
    size = f"{dialect.bytes_of('data')} + {dialect.bytes_of('bytes')}" if bytes_too else "0"
    rows, _ = yield Statement(
        f"select {KEY}, due_at_us, {size} from edda_outbox "
        f"where ({_these(len(keys))}) and status = 'pending' order by {KEY}{dialect.lock_unless_taken}",
        _flat(keys),
    )
    return [Head(_key(row), row[3], row[4]) for row in rows]


def _within(heads: Sequence[Head], bytes_max: int) -> list[Key]:
    """The longest waiting of these, until their data come to `bytes_max`."""
    taken: list[Key] = []
    taken_bytes = 0
    for head in sorted(heads, key=lambda head: (head.due_at_us, head.key)):
        if taken_bytes >= bytes_max:
            break
        taken.append(head.key)
        taken_bytes += head.bytes
    return sorted(taken)


def _defer(
    dialect: Dialect, page: Sequence[Key], heads: Sequence[Head], taken: dict[Key, int], now_us: int
) -> Verb[None]:
    """Let what is behind a head wait as long as the head itself."""
    due = {head.key: head.due_at_us for head in heads}
    due |= taken
    head_of = {head.key[0]: head.key for head in heads}
    behind = [key for key in page if key[0] in head_of and key not in due]
    waiting = list(dict.fromkeys(head_of[key[0]] for key in behind if due[head_of[key[0]]] > now_us))
    known = dict(taken)
    for start in range(0, len(waiting), OUTBOX_LIMIT_MAX):
        some = [key for key in waiting[start : start + OUTBOX_LIMIT_MAX] if key not in taken]
        known |= {head.key: head.due_at_us for head in (yield from _lock(dialect, some))}
    blocked = [
        (known.get(head_of[key[0]], now_us + UNKNOWN_HEAD_US), *key, now_us)
        for key in sorted(behind)
        if head_of[key[0]] in waiting
    ]
    if blocked:
        yield Statement(
            "update edda_outbox set due_at_us = ?, relayer = null, claim_key = null "
            "where instance_id = ? and seq = ? and ordinal = ? and status = 'pending' and due_at_us <= ?",
            blocked,
            many=True,
        )


def _leased(keys: Sequence[Key], claim_key: int) -> Verb[tuple[LeasedMessage, ...]]:
    """The whole messages."""
    if not keys:
        return ()
    rows, _ = yield Statement(f"select {OUTBOX_LIST} from edda_outbox where {_these(len(keys))}", _flat(keys))
    return tuple(_leased_message(row, claim_key) for row in rows)


def _next_due(now_us: int) -> Verb[int | None]:
    rows, _ = yield Statement(
        "select due_at_us from edda_outbox where status = 'pending' and due_at_us > ? order by due_at_us limit 1",
        (now_us,),
    )
    return int(rows[0][0]) if rows else None


def claimed_with(dialect: Dialect, claim_key: int) -> Verb[OutboxClaims]:
    """What a claim took whose answer was lost. What becomes visible only now is found again when its lease is over."""
    now_us = yield from _now(dialect)
    # Leases are among what is not due.
    rows, _ = yield Statement(
        f"select {OUTBOX_LIST} from edda_outbox where status = 'pending' and due_at_us > ? and claim_key = ?",
        (now_us, claim_key),
    )
    leased = tuple(_leased_message(row, claim_key) for row in rows)
    return OutboxClaims(now_us=now_us, leased=leased, more=True, next_due_us=None)


def end_leases(dialect: Dialect, relayer: str, now_us: int) -> Verb[None]:
    """The worker of this relayer is dead: what it leased is due now. A late settlement counts until others claim it.

    What is locked at this moment is passed over, for whoever declares a worker dead must not wait for a third one.
    """
    rows, _ = yield Statement(
        f"select {KEY} from edda_outbox where status = 'pending' and due_at_us > ? and relayer = ?",
        (now_us, relayer),
    )
    leased = sorted(_key(row) for row in rows)
    for start in range(0, len(leased), OUTBOX_LIMIT_MAX):
        locked = yield from _lock(dialect, leased[start : start + OUTBOX_LIMIT_MAX])
        if locked:
            yield Statement(
                f"update edda_outbox set due_at_us = ? where ({_these(len(locked))}) "
                "and status = 'pending' and relayer = ? and due_at_us > ?",
                (now_us, *_flat(head.key for head in locked), relayer, now_us),
            )


# -- settling ----------------------------------------------------------------------------------------------------------


def settle(dialect: Dialect, settlements: Sequence[Settlement]) -> Verb[tuple[bool, ...]]:
    """Write down what became of messages, where the claim that had them has them still."""
    now_us = yield from _now(dialect)
    asked = sorted(_key_of(settlement.leased.message) for settlement in settlements)
    rows, _ = yield Statement(
        f"select {KEY}, claim_key, relayer from edda_outbox where {_these(len(asked))} order by {KEY}{dialect.lock}",
        _flat(asked),
    )
    found = {_key(row): (row[3], row[4]) for row in rows}
    held: list[bool] = []
    settled: list[tuple[Key, Outcome]] = []
    for leased, outcome in settlements:
        key = _key_of(leased.message)
        claim_key, relayer = found.get(key, (None, None))
        held.append(claim_key == leased.claim_key)
        if held[-1] and relayer is not None:  # else it was settled already, and the answer was lost
            settled.append((key, outcome))
    if settled:
        # `attempts` counts what was tried.
        yield Statement(
            "update edda_outbox set status = ?, due_at_us = ?, reason = ?, attempts = attempts + ?, relayer = null "
            "where instance_id = ? and seq = ? and ordinal = ?",
            [(*_after(outcome, now_us), *key) for key, outcome in sorted(settled, key=lambda each: each[0])],
            many=True,
        )
        yield from _advance(dialect, [key[0] for key, outcome in settled if _is_last(outcome)], now_us)
    return tuple(held)


def _after(outcome: Outcome, now_us: int) -> tuple[str, int, str | None, int]:
    """Status, due time, reason and counted attempts of a settled row."""
    match outcome:
        case Delivered():
            return "delivered", now_us, None, 1
        case Dead(reason=reason):
            return "dead", now_us, reason, 1
        case Again(delay_us=delay_us, reason=reason):
            return "pending", now_us + delay_us, reason, 1
        case GivenBack():
            return "pending", now_us, None, 0


def _is_last(outcome: Outcome) -> bool:
    """The message makes room for the one behind it."""
    return isinstance(outcome, Delivered | Dead)


def _advance(dialect: Dialect, ids: Sequence[InstanceId], now_us: int) -> Verb[None]:
    """The next messages of these instances may have been deferred: they are due now."""
    deferred = [head.key for head in (yield from _heads(dialect, sorted(ids))) if head.due_at_us > now_us]
    if deferred:
        yield Statement(
            f"update edda_outbox set due_at_us = ? where ({_these(len(deferred))}) "
            "and status = 'pending' and relayer is null and due_at_us > ?",
            (now_us, *_flat(deferred), now_us),
        )


# -- people, and time --------------------------------------------------------------------------------------------------


def state(dialect: Dialect, *, count_max: int) -> Verb[OutboxState]:
    """How many are pending and dead, up to a limit, by the index on due times."""
    rows, _ = yield Statement(
        f"select {dialect.now}, (select count(*) from ("
        "select 1 from edda_outbox where status = 'dead' order by due_at_us limit ?) d), count(*), min(p.at_us) "
        "from (select at_us from edda_outbox where status = 'pending' order by due_at_us limit ?) p",
        (count_max, count_max),
    )
    now_us, dead, pending, oldest_at_us = rows[0]
    return OutboxState(int(now_us), int(pending), int(dead), None if oldest_at_us is None else int(oldest_at_us))


def dead_letters(*, limit: int) -> Verb[tuple[DeadLetter, ...]]:
    """Those that a sink refused for good, the latest first."""
    rows, _ = yield Statement(
        f"select {OUTBOX_LIST}, reason from edda_outbox where status = 'dead' order by due_at_us desc limit ?",
        (limit,),
    )
    return tuple(
        DeadLetter(message=_message(row), attempts=row[-3], reason=row[-1] or "", died_at_us=row[-2]) for row in rows
    )


def dead_with_id(event_id: str) -> Verb[list[Key]]:
    """The dead letters of this id (there is one, or none). They are few, so walking along them is enough."""
    rows, _ = yield Statement(
        f"select {KEY} from edda_outbox where status = 'dead' and id = ? order by due_at_us limit ?",
        (event_id, OUTBOX_LIMIT_MAX),
    )
    return [_key(row) for row in rows]


def requeue(dialect: Dialect, keys: Sequence[Key]) -> Verb[None]:
    """From the beginning, as if they had just been written."""
    now_us = yield from _now(dialect)
    yield Statement(
        "update edda_outbox set status = 'pending', due_at_us = ?, attempts = 0, reason = null, claim_key = null "
        f"where ({_these(len(keys))}) and status = 'dead'",
        (now_us, *_flat(keys)),
    )


def purge(dialect: Dialect, *, age_us: int, limit: int) -> Verb[int]:
    """Delete what was delivered long ago; what another purge has locked is passed over."""
    now_us = yield from _now(dialect)
    rows, _ = yield Statement(
        f"select {KEY} from edda_outbox where status = 'delivered' and due_at_us < ? "
        f"order by due_at_us limit ?{dialect.lock_unless_taken}",
        (now_us - age_us, limit),
    )
    keys = [_key(row) for row in rows]
    if keys:
        yield Statement(f"delete from edda_outbox where {_these(len(keys))}", _flat(keys))
    return len(keys)


# -- rows --------------------------------------------------------------------------------------------------------------


def _now(dialect: Dialect) -> Verb[int]:
    rows, _ = yield Statement(f"select {dialect.now}")
    return int(rows[0][0])


def _these(count: int) -> str:
    """The condition that a row has one of `count` keys."""
    return " or ".join(["(instance_id = ? and seq = ? and ordinal = ?)"] * count)


def _flat(keys: Iterable[Key]) -> tuple[Any, ...]:
    return tuple(value for key in keys for value in key)


def _key(row: Row) -> Key:
    return row[0], row[1], row[2]


def _key_of(message: OutboxMessage) -> Key:
    return message.instance_id, message.seq, message.ordinal


def _head(row: Row) -> Head:
    return Head(_key(row), row[3])


def _message(row: Row) -> OutboxMessage:
    return OutboxMessage(*row[:MESSAGE_WIDTH])


def _leased_message(row: Row, claim_key: int) -> LeasedMessage:
    """A row of `OUTBOX_LIST`: behind the message come status, attempts and due time."""
    return LeasedMessage(_message(row), row[MESSAGE_WIDTH + 1], claim_key)
