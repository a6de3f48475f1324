"""People who send events to a simulated world: early and late, twice, several at once, and again if nobody answered.

Each wait of a kitchen sink gets a letter of its own, with an id of its own (two sources share the ids): some are on
their way before anybody waits, or even before the instance is there; the others leave when the body asks, some of them
close to its deadline. A letter is brought to whoever serves. It is sent again until a receipt comes, each time the same
event. Whoever got a receipt sends a copy now and then: that must change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edda.core.event import TARGET, CloudEvent, Receipt
from edda.core.routing import Criteria
from edda.engine.event_waits import SINCE_START_US
from edda.exceptions import EddaError
from tests.simulation.kitchen_sink import NOTE, asked_by, tree_of, waiting

if TYPE_CHECKING:
    from tests.simulation.handling import Order
    from tests.simulation.world import Node, Start, World

SOURCES: Final = ("/north", "/south")
AGAIN_US: Final = 40_000
LATE_COPY: Final = "2001-01-01T00:00:00Z"
"""The time of a copy that is sent after the event was known to be stored: nobody may ever see it."""


@dataclass(slots=True, eq=False)
class Letter:
    """An event for one wait, on its way until it has a receipt."""

    event: CloudEvent
    bearer: Node | None = None
    receipt: Receipt | None = None


class Senders:
    """See the head of this file."""

    def __init__(self, world: World) -> None:
        self.letters: dict[tuple[str, str], Letter] = {}
        """By the wait that each is for: its instance, and its call."""
        self.sent: dict[tuple[str, str], CloudEvent] = {}
        """All that anybody ever sent, by source and id."""
        self._world = world
        self._chance = world.random.random

    def ahead(self, start: Start) -> None:
        """Letters for waits of an instance that is not there yet."""
        if "size" not in start.arguments:
            return
        early = [
            self._letter(start.id, node[0], node[1], node[2])
            for node in waiting(tree_of(**start.arguments))
            if self._chance() < self._world.scenario.early
        ]
        together = self._chance() < 0.3
        for letters in [early] if together else [[letter] for letter in early]:
            self._leave(letters, start.at_us + int(10 ** (2 + 4 * self._chance())))

    def order(self, order: Order) -> None:
        """An event that starts an instance; what does not concern that is in it, too."""
        count = len(self.sent)
        event = CloudEvent(
            id=f"letter-{count // len(SOURCES)}",
            source=SOURCES[count % len(SOURCES)],
            type=order.type,
            json=json.dumps({"seed": order.seed, "size": order.size, "of": "somebody"}),
        )
        self.sent[event.source, event.id] = event
        letter = self.letters["order", event.source + event.id] = Letter(event)
        self._leave([letter], order.at_us)

    def wanted(self, instance_id: str, call_id: str, criteria: Criteria, due_us: int | None) -> None:
        """The body asks for an event: one comes, if none does already."""
        kind, _, number = call_id.partition("-")
        if kind == "echo" or self._comes(instance_id, call_id) or len(self.sent) >= self._world.scenario.letters_max:
            return
        delay_us = int(10 ** (2 + 4 * self._chance()))
        if due_us is not None and self._chance() < 0.4:
            left_us = due_us - self._world.store.now_us()
            delay_us = max(left_us + int((self._chance() - 0.7) * 8_000), 0) if left_us < 2_000_000 else delay_us
        option = int(criteria.fields == ("subject",))
        self._leave([self._letter(instance_id, kind, int(number), option)], delay_us)

    def _comes(self, instance_id: str, call_id: str) -> bool:
        """One was sent, and not so long ago that the instance need not hear of it."""
        letter = self.letters.get((instance_id, call_id))
        if letter is None:
            return False
        store = self._world.store
        row = store.rows.get(instance_id)  # type: ignore[call-overload]
        stored = next((one for one in store.inbox.values() if one.event == letter.event), None)
        return row is None or stored is None or stored.accepted_at_us >= row.created_at_us - SINCE_START_US

    def _letter(self, instance_id: str, kind: str, number: int, option: int) -> Letter:
        call_id, event_type, more = asked_by(instance_id, kind, number, option)
        count = len(self.sent)
        extensions = {TARGET: instance_id} if event_type == NOTE else {}
        event = CloudEvent(
            id=f"letter-{count // len(SOURCES)}",
            source=SOURCES[count % len(SOURCES)],
            type=event_type,
            subject=more.get("subject"),
            json=json.dumps(more.get("match", {"for": call_id})),
            extensions=extensions,
        )
        self.sent[event.source, event.id] = event
        letter = self.letters[instance_id, call_id] = Letter(event)
        return letter

    def send(self, events: Sequence[CloudEvent]) -> None:
        """These, now, and until there are receipts."""
        letters = [Letter(event) for event in events]
        for letter in letters:
            self.sent[letter.event.source, letter.event.id] = letter.event
            self.letters[letter.event.source, letter.event.id] = letter
        self._leave(letters, 0)

    # -- on the way --------------------------------------------------------------------------------------------------

    def _leave(self, letters: list[Letter], delay_us: int) -> None:
        loop = self._world.loop
        loop.after(loop.world, delay_us, self._post, letters)
        if self._chance() < self._world.scenario.copies:  # the same, by another way
            loop.after(loop.world, delay_us + int(self._chance() * 3_000), self._post, letters)

    def _post(self, letters: Sequence[Letter]) -> None:
        world = self._world
        serving = world.serving()
        if not serving or world.loop.random.random() < 0.02:
            world.loop.after(world.loop.world, AGAIN_US, self._post, letters)
            return
        node = world.loop.random.choice(serving)
        for letter in letters:
            letter.bearer = node
        world.loop.spawn(node.process, self._bring(node, letters))

    async def _bring(self, node: Node, letters: Sequence[Letter]) -> None:
        world, loop = self._world, self._world.loop
        try:
            receipts = await node.app.accept([letter.event for letter in letters])
        except EddaError as error:
            world.note(node, f"no receipt for {_named(letters)}: {error}")
            loop.after(loop.world, AGAIN_US, self._post, letters)
            return
        world.note(node, f"receipts for {_named(letters)}: {', '.join(receipt.value for receipt in receipts)}")
        again: list[Letter] = []
        for letter, receipt in zip(letters, receipts, strict=True):
            world.mail.receipt(letter.event, receipt)
            if receipt is Receipt.NO_SUCH_INSTANCE:
                again.append(letter)
            else:
                letter.receipt = receipt
        if again:
            loop.after(loop.world, AGAIN_US, self._post, again)
        elif loop.random.random() < world.scenario.copies:
            loop.after(loop.world, int(10 ** (2 + 4 * loop.random.random())), self._copy, letters)

    def _copy(self, letters: Sequence[Letter]) -> None:
        copies = [Letter(letter.event._replace(time=LATE_COPY)) for letter in letters]
        serving = self._world.serving()
        if serving:
            node = self._world.loop.random.choice(serving)
            self._world.loop.spawn(node.process, self._bring_copy(node, copies))

    async def _bring_copy(self, node: Node, copies: Sequence[Letter]) -> None:
        try:
            receipts = await node.app.accept([copy.event for copy in copies])
        except EddaError:
            return
        for copy, receipt in zip(copies, receipts, strict=True):
            self._world.mail.receipt(copy.event, receipt)

    def look_after(self) -> None:
        """What was brought to a process that died is sent again."""
        for letter in list(self.letters.values()):
            if letter.receipt is None and letter.bearer is not None and letter.bearer.process.dead:
                letter.bearer = None
                self._post([letter])


def _named(letters: Sequence[Letter]) -> str:
    return ", ".join(f"{letter.event.source}/{letter.event.id}" for letter in letters)


__all__ = ["LATE_COPY", "Letter", "Senders"]
