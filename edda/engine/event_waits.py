"""The waits for events of one body: first stored, then looked up, answered in the order in which they were asked.

Laws:
- A wait is stored before the inbox is looked at, and looked up before anybody parks on it: so an event that came
  before is found, and one that comes after wakes the instance.
- A deadline is over only when the inbox was looked at after it, events on their way included: one that was accepted
  in time beats the timeout, however late it is handled.
- An event is received at most once by an instance: what it had stands in its history.
"""

from __future__ import annotations

from typing import NamedTuple

from edda.core.commit import EventWait
from edda.core.history import Kind
from edda.core.routing import EventKey
from edda.engine.body_run import Call
from edda.engine.instance import Instance, NoEventInTime
from edda.engine.records import KEY
from edda.storage.inbox import FOUND_MAX, InboxEvent, Look

SINCE_START_US = 5_000_000
"""Events accepted shortly before the instance started are its business, too: whoever sent them knew of it already."""


class Question(NamedTuple):
    """What the inbox is to be asked."""

    look: Look
    overdue: frozenset[str]
    """Calls whose deadline had passed before. One that passes while the look is under way wants another look."""

    @property
    def unrouted(self) -> bool:
        """Also for events on their way."""
        return bool(self.overdue)


class EventWaits:
    """See the head of this file. Nothing here writes or reads by itself."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._waits: dict[str, Call] = {}
        """Asked and unanswered, in the order of asking."""
        self._stored: set[str] = set()
        """Calls whose waits others can see; while one is on its way nobody looks."""
        self._mail: dict[EventKey, InboxEvent] = {}
        """Found and not received yet, in order of acceptance."""
        self._had = {
            EventKey(event.details()[KEY])
            for event in instance.journal.events
            if event.kind in (Kind.EVENT_RECEIVED, Kind.EVENT_REJECTED)
        }
        self._more = False
        """There may be more behind what was found."""
        self._overdue: set[str] = set()
        """Calls whose deadline has passed; the next look decides."""
        self._unseen = False
        """Something may be in the inbox that nobody has looked at."""
        self._wakes = 0
        """Reasons to look so far: one that comes during a look is a reason to look again."""
        self._asked_at = 0
        self.looking = False
        self.unread = False
        """The inbox answered, and the body has not been stepped since."""
        self.recalled = instance.journal.started is not None
        """These waits were asked by a body before this one, and are most likely stored: look first."""

    def __bool__(self) -> bool:
        return bool(self._waits)

    # -- asking and answering ----------------------------------------------------------------------------------------

    def ask(self, call: Call) -> None:
        self._waits[call.id] = call
        self._instance.draft.may_wait = True
        self.woken()

    def forget(self, call: Call) -> None:
        """It has its answer, or the body gave it up."""
        if self._waits.pop(call.id, None) is not None:
            self._overdue.discard(call.id)
            self._stored.discard(call.id)

    def give_up(self, call: Call) -> None:
        if call.id in self._waits:
            self.forget(call)
            self._instance.draft.waits_over.append(call.id)

    def next_match(self) -> tuple[Call, InboxEvent] | None:
        """The first wait for which there is mail."""
        if not self._mail:
            return None
        for call in self._waits.values():
            assert call.wish is not None
            for found in self._mail.values():
                in_time = call.wish.timeout_seconds is None or found.accepted_at_us <= call.due_us
                if in_time and call.wish.criteria.fits(found.event):
                    return call, found
        return None

    def consumed(self, found: InboxEvent) -> None:
        """It is in history now, received or rejected."""
        del self._mail[found.key]
        self._had.add(found.key)
        if self._more:
            self.woken()

    # -- storing -----------------------------------------------------------------------------------------------------

    def store(self) -> bool:
        """Put waits that nobody else knows of into the draft. True: there are some, and they want to be written.

        To be called when all that was found is received.
        """
        self.unread = False
        if self.recalled or len(self._stored) == len(self._waits):
            return False
        for call in self._waits.values():
            if call.id not in self._stored:
                assert call.wish is not None
                self._instance.draft.waits.append(EventWait(call.id, call.name, call.wish.criteria.route))
                self._stored.add(call.id)
        self.woken()
        return True

    # -- looking -----------------------------------------------------------------------------------------------------

    def woken(self) -> None:
        """Something may have come."""
        self._unseen = True
        self._wakes += 1

    def question(self) -> Question | None:
        """What to ask the inbox now. To be called when everything drafted is durable."""
        if not self._unseen or self.looking or not self._waits:
            return None
        self.looking = True
        self._asked_at = self._wakes
        wanted = [call.wish.criteria for call in self._waits.values() if call.wish is not None]
        look = Look(
            instance_id=self._instance.id,
            since_us=self._instance.row.created_at_us - SINCE_START_US,
            wanted=tuple(dict.fromkeys(wanted)),
            had=frozenset(self._had),
        )
        return Question(look, frozenset(self._overdue))

    def answered(self, found: list[InboxEvent], *, question: Question) -> None:
        """What the inbox said. Waits whose deadline had passed before, and for which there is nothing, are over."""
        self.looking = self.recalled = False
        self.unread = True
        self._unseen = self._wakes != self._asked_at
        self._mail = {one.key: one for one in found if one.key not in self._had}
        self._more = len(found) >= FOUND_MAX
        over = [call for call_id, call in self._waits.items() if call_id in question.overdue]
        self._instance.arrived.extend(map(NoEventInTime, over))

    # -- deadlines ---------------------------------------------------------------------------------------------------

    def collect_due(self, now_us: int) -> None:
        for call in self._waits.values():
            if _deadline(call) is not None and call.due_us <= now_us and call.id not in self._overdue:
                self._overdue.add(call.id)
                self.woken()

    def earliest_due_us(self) -> int | None:
        """Of the deadlines that have not passed."""
        dues = [call.due_us for call in self._waits.values() if call.id not in self._overdue and _deadline(call)]
        return min(dues) if dues else None

    def in_words(self) -> str:
        return ", ".join(dict.fromkeys(map(_wanted, self._waits.values())))


def _wanted(call: Call) -> str:
    where = call.wish.criteria.where if call.wish is not None else ""
    return f"{call.name} ({where})" if where else call.name


def _deadline(call: Call) -> int | None:
    assert call.wish is not None
    return None if call.wish.timeout_seconds is None else call.due_us
