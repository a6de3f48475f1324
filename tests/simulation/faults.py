"""What can go wrong, where, and how often: faults, the operations they hit, and a plan of them drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from random import Random
from typing import Final


class Fault(StrEnum):
    """What happens to one call of a process to the database."""

    CRASH_BEFORE = "crash before"
    """The process dies, and the database never hears of the call."""
    CRASH_AFTER = "crash after"
    """The process dies when the database has done it."""
    LOST = "answer lost"
    """Done, but the caller gets UnknownOutcome."""
    NOT_DONE = "unknown, not done"
    """Not done, and the caller gets UnknownOutcome, too."""
    LATE = "unknown, done late"
    """The caller gets UnknownOutcome while the old transaction is still under way; it is done a little later."""
    AWAY = "away"
    """DatabaseUnavailableError; nothing is done."""
    REFUSED = "refused"
    """The database refuses once: StorageError (a deadlock that went on), or a serialization failure in a session."""
    PAUSE_BEFORE = "pause, done meanwhile"
    """The process stops for longer than its lease; its call is done, the answer waits for it."""
    PAUSE_AFTER = "pause, done after"
    """The same, but the call only arrives when the process goes on, though it was sent before."""
    SLOW = "slow"
    """The answer takes a second or two."""


CRASHES: Final = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER)
PAUSES: Final = (Fault.PAUSE_BEFORE, Fault.PAUSE_AFTER)
_WRITES: Final = (
    *(Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.LOST, Fault.NOT_DONE, Fault.LATE, Fault.AWAY, Fault.REFUSED),
    *(Fault.PAUSE_BEFORE, Fault.PAUSE_AFTER, Fault.SLOW),
)
_READS: Final = (Fault.CRASH_AFTER, Fault.AWAY, Fault.PAUSE_BEFORE, Fault.SLOW)

RELAY_FAULTS: Final[Mapping[str, Sequence[Fault]]] = {
    # An answer of a claim is lost for good where nobody can look it up, either.
    "relay claim": (*CRASHES, Fault.LOST, Fault.NOT_DONE, Fault.AWAY, Fault.REFUSED, *PAUSES, Fault.SLOW),
    "relay settle": _WRITES,
    "relay requeue": (*CRASHES, Fault.LOST, Fault.NOT_DONE, Fault.AWAY, *PAUSES, Fault.SLOW),
    "relay purge": (*CRASHES, Fault.LOST, Fault.NOT_DONE, Fault.AWAY, *PAUSES, Fault.SLOW),
    # Not to the database: a call of the sink.
    "publish": _WRITES,
}
"""In worlds with relayers."""

FAULTS: Final[Mapping[str, Sequence[Fault]]] = {
    # The commits of a batch, named after the most that one of them does.
    "write start": _WRITES,
    "write step": _WRITES,
    "write child": _WRITES,
    "write park": _WRITES,
    "write undo": _WRITES,
    "write end": _WRITES,
    "session commit": (
        *(Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.LOST, Fault.NOT_DONE, Fault.LATE, Fault.REFUSED),
        *(Fault.PAUSE_BEFORE, Fault.PAUSE_AFTER, Fault.SLOW),
    ),
    # A lost answer of a claim is looked up inside the real stores, so it does not come out of them.
    "claim": (*CRASHES, Fault.AWAY, Fault.REFUSED, *PAUSES, Fault.SLOW),
    "settle": (*CRASHES, Fault.AWAY, Fault.LOST, *PAUSES, Fault.SLOW),
    "reap": (*CRASHES, Fault.AWAY, Fault.LOST, Fault.NOT_DONE, *PAUSES, Fault.SLOW),
    "retire": (*CRASHES, Fault.AWAY, Fault.LOST, Fault.NOT_DONE, Fault.SLOW),
    "register": (*CRASHES, Fault.AWAY, *PAUSES, Fault.SLOW),
    "renew": (Fault.AWAY, Fault.LOST, Fault.NOT_DONE, *PAUSES, Fault.SLOW),
    "cancel": (*CRASHES, Fault.AWAY, Fault.LOST, Fault.NOT_DONE, *PAUSES, Fault.SLOW),
    "retry": (*CRASHES, Fault.AWAY, Fault.LOST, Fault.NOT_DONE, *PAUSES, Fault.SLOW),
    # The inbox. The stores of real servers ask again when an answer was lost; SQLite's lets it out.
    "accept": _WRITES,
    "route": (*CRASHES, Fault.AWAY, Fault.LOST, Fault.NOT_DONE, Fault.REFUSED, *PAUSES, Fault.SLOW),
    "learn": (*CRASHES, Fault.AWAY, Fault.LOST, Fault.NOT_DONE, *PAUSES, Fault.SLOW),
    "look": (Fault.CRASH_BEFORE, *_READS, Fault.PAUSE_AFTER),
    "unrouted": _READS,
    "histories": _READS,
    "children": _READS,
    "notices": _READS,
    "absentees": _READS,
    **RELAY_FAULTS,
}
"""Which fault may hit which operation."""


class Plan:
    """Which calls will fail: for each operation, after how many more calls of it, with what.

    `draw` is asked once per call, in the order in which the calls reach the database.
    """

    def __init__(self, faults: Sequence[tuple[str, int, Fault]]) -> None:
        self._waiting: dict[str, list[list[int]]] = {}
        self._faults: list[Fault] = []
        self.add(faults)

    def add(self, faults: Sequence[tuple[str, int, Fault]]) -> None:
        for operation, nth, fault in faults:
            self._waiting.setdefault(operation, []).append([nth, len(self._faults)])
            self._faults.append(fault)

    def draw(self, operation: str) -> Fault | None:
        waiting = self._waiting.get(operation)
        if not waiting:
            return None
        hit: Fault | None = None
        for entry in waiting:
            entry[0] -= 1
            if entry[0] < 0 and hit is None:
                hit = self._faults[entry[1]]
                waiting.remove(entry)
                break
        return hit

    def __contains__(self, operation: str) -> bool:
        return operation in self._waiting

    def __str__(self) -> str:
        return ", ".join(
            f"{operation}[{nth}] {self._faults[place]}"
            for operation, entries in self._waiting.items()
            for nth, place in entries
        )


_OPERATIONS: Final = tuple(operation for operation in FAULTS if operation not in RELAY_FAULTS)
_COMMON: Final = (
    *("write step", "write step", "write park", "write end", "session commit", "claim", "write undo"),
    *("write child", "retire", "cancel", "retry"),
    *("accept", "route", "look"),
)


def plan_of(random: Random) -> Plan:
    """Up to six faults: half of them anywhere, half of them where instances are written."""
    faults: list[tuple[str, int, Fault]] = []
    for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4, 5, 6))):
        operation = random.choice(_OPERATIONS if random.random() < 0.6 else _COMMON)
        nth = 0
        while random.random() < _GO_ON.get(operation, 0.5):
            nth += 1
        fault = random.choice(FAULTS[operation])
        faults.append((operation, nth, fault))
        if operation == "settle":  # which only happens after a lost answer
            first = random.choice(("write step", "write park", "write end", "session commit", "write child"))
            faults.append((first, random.randrange(3), random.choice((Fault.LOST, Fault.NOT_DONE, Fault.LATE))))
        elif operation == "reap":
            faults.append(("write step", random.randrange(4), Fault.CRASH_AFTER))
        elif operation == "retry":  # which only happens when something was set aside
            faults.append((random.choice(("write step", "write end")), random.randrange(2), Fault.REFUSED))
    return Plan(faults)


def relay_faults_of(random: Random) -> list[tuple[str, int, Fault]]:
    """Up to three faults of relayers; how many calls go well before is geometric, too."""
    faults: list[tuple[str, int, Fault]] = []
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        operation = random.choice(tuple(RELAY_FAULTS))
        nth = 0
        while random.random() < (0.2 if operation == "relay requeue" else 0.5):
            nth += 1
        faults.append((operation, nth, random.choice(RELAY_FAULTS[operation])))
    return faults


_GO_ON: Final = {
    "write step": 0.8,
    "retire": 0.1,
    "cancel": 0.2,
    "retry": 0.2,
    "write child": 0.2,
    "children": 0.3,
    "learn": 0.2,
}
"""The chance that one more call of this operation goes well before the fault."""
