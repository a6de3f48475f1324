"""The steps of one instance that are under way: waiting to begin, running, or waiting for another attempt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edda.engine.attempts import Attempts, Client
from edda.engine.hook_queue import HookQueue
from edda.engine.step import Step

SETTLE_SECONDS: Final = 60.0
"""How long an attempt that cannot be interrupted, and has no timeout, is waited for when its workflow is over."""


class Steps:
    """Steps by call id."""

    def __init__(self) -> None:
        self._under_way: dict[str, Step] = {}
        self._to_begin: list[Step] = []
        self.running = 0
        """Attempts whose outcome has not been taken yet."""

    def __iter__(self) -> Iterator[Step]:
        return iter(list(self._under_way.values()))

    def __bool__(self) -> bool:
        return bool(self._under_way)

    def get(self, call_id: str) -> Step | None:
        return self._under_way.get(call_id)

    def add(self, step: Step) -> None:
        """It begins when what asked for it is durable, or when its next attempt is due."""
        self._under_way[step.call_id] = step
        self._to_begin.append(step)

    def remove(self, call_id: str) -> None:
        self._under_way.pop(call_id, None)

    def outcome_taken(self, call_id: str) -> Step | None:
        """The outcome of its attempt is being dealt with. None where the step was given up meanwhile."""
        self.running -= 1
        step = self._under_way.get(call_id)
        if step is not None:
            step.attempt = None
        return step

    def begin(self, client: Client, attempts: Attempts, hooks: HookQueue) -> None:
        """Begin what may begin now."""
        if not self._to_begin:
            return
        for step in self._to_begin:
            if self._under_way.get(step.call_id) is step and step.due_us is None and step.attempt is None:
                self.running += 1
                step.attempt = attempts.run(client, step)
                hooks.call("on_activity_start", client.instance_id, step.call_id, step.code.name, False)
        self._to_begin.clear()

    @property
    def to_begin(self) -> bool:
        return bool(self._to_begin)

    def collect_due(self, now_us: int) -> None:
        """Steps whose back-off is over may begin."""
        for step in self._under_way.values():
            if step.due_us is not None and step.due_us <= now_us and step.attempt is None:
                step.due_us = None
                self._to_begin.append(step)

    def earliest_due_us(self) -> int | None:
        earliest: int | None = None
        for step in self._under_way.values():
            if step.due_us is not None and (earliest is None or step.due_us < earliest):
                earliest = step.due_us
        return earliest

    def abandon(self) -> float:
        """Nobody waits for them any more. Returns for how many seconds the end of some attempts is to be awaited.

        An attempt that may have to be undone is waited for; others are cancelled; what does not run is forgotten.
        """
        self._to_begin.clear()
        patience = 0.0
        for step in list(self._under_way.values()):
            if step.attempt is None:
                del self._under_way[step.call_id]
            elif step.interruptible:
                step.attempt.interrupt()
            else:
                patience = max(patience, step.code.timeout or SETTLE_SECONDS)
        return patience

    def stop_waiting(self) -> list[Step]:
        """Attempts that still have not ended are forgotten; returns their steps."""
        unanswered = [step for step in self._under_way.values() if step.attempt is not None]
        for step in unanswered:
            assert step.attempt is not None
            step.attempt.forget()
            self.running -= 1
            del self._under_way[step.call_id]
        return unanswered

    def forget(self) -> None:
        """The claim is gone: cancel everything; no outcome is wanted."""
        self.stop_waiting()
        self._under_way.clear()
        self._to_begin.clear()
