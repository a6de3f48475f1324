"""The nemesis: keeps processes in their slots, and kills, stops and terminates them at moments drawn from a seed.

It must not know workflows. It ends only processes that it started, and all of them at its own end. What it does it
writes down, on the clock that the processes use in their logs, so that somebody else can tell what followed from it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.process.zygote import Child, Zygote

AMBUSH_SECONDS: Final = 1.0
"""An ambush that nobody walked into for so long becomes an ordinary kill or stop."""
LAST_WORDS_MAX: Final = 2_000
"""Characters that a process wrote before it ended where nobody had asked it to."""
TICK_SECONDS: Final = 0.02


def poll(condition: Callable[[], Any], *, seconds_max: float, every: float = 0.05) -> Any:
    """Ask until the condition holds; what it said last, which is falsy when the time was over."""
    deadline = time.monotonic() + seconds_max
    while True:
        answer = condition()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(every)


@dataclass(slots=True)
class Slot:
    """A place for one process; when that is gone the next one comes."""

    number: int
    process: Child | None = None
    stopped_until: float | None = None
    ambushed: tuple[float, signal.Signals] | None = None
    terminating_since: float | None = None
    vacant_until: float = 0.0

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def quiet(self) -> bool:
        """Nothing is being done to it."""
        return (
            self.process is not None
            and self.stopped_until is None
            and self.ambushed is None
            and self.terminating_since is None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What was done to a process, and when."""

    at: float
    what: str
    pid: int
    slot: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Appetite:
    """How often it strikes, in seconds from one strike to the next of the kind; 0: never."""

    kill: float = 4.0
    stop: float = 9.0
    terminate: float = 20.0
    stopped_min: float = 3.0
    stopped_max: float = 6.0
    vacant_max: float = 0.5
    ambush_share: float = 0.5


@dataclass(slots=True)
class Nemesis:
    """`arguments(slot)` is what the process there gets; `boots` tells whether one has come so far that a strike means
    something."""

    arguments: Callable[[int], list[str]]
    slots: int
    random: Random
    appetite: Appetite
    directory: Path
    prefer: Callable[[], int | None] = lambda: None
    """The pid that most kills should go to, where one process is special."""
    program: str = "tests.process.worker_main"
    boots: Callable[[int], bool] = lambda pid: True
    deeds: list[Deed] = field(default_factory=list[Deed])
    troubles: list[str] = field(default_factory=list[str])
    """Processes that ended though nobody had asked them to."""
    _zygote: Zygote | None = None
    _slots: list[Slot] = field(default_factory=list[Slot])
    _due: dict[str, float] = field(default_factory=dict[str, float])

    # -- life --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._zygote = Zygote(errors=self.directory / "stderr-zygote", program=self.program)
        self._slots = [Slot(number) for number in range(self.slots)]
        for slot in self._slots:
            self._spawn(slot)

    def _spawn(self, slot: Slot) -> None:
        assert self._zygote is not None
        slot.process = self._zygote.spawn(slot.number, self.arguments(slot.number), errors=self._errors_of(slot))
        self._note("spawn", slot)

    def _errors_of(self, slot: Slot) -> Path:
        return self.directory / f"stderr-{slot.number}"

    def end(self, *, seconds_max: float = 30.0) -> None:
        """Whatever is left of its processes is terminated, and what does not end then, killed."""
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is None:
                _send(slot, signal.SIGCONT)
                if slot.terminating_since is None:
                    self._note("terminate", slot)
                _send(slot, signal.SIGTERM)
        for slot in self._slots:
            if slot.process is not None:
                code = slot.process.wait(seconds_max)
                if code is None:
                    self.troubles.append(
                        f"pid {slot.pid} (slot {slot.number}) did not end {seconds_max} s after SIGTERM"
                    )
                elif code != 0:
                    self.troubles.append(f"pid {slot.pid} (slot {slot.number}) ended with {code} after SIGTERM")

    def abort(self) -> None:
        """Kill everything, whatever state it is in."""
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is None:
                _send(slot, signal.SIGKILL)
                slot.process.wait()
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    # -- striking ----------------------------------------------------------------------------------------------------

    def tick(self, *, striking: bool) -> None:
        """Do what is due now. `striking` False: only mend what was broken."""
        now = time.monotonic()
        for slot in self._slots:
            self._look_after(slot, now)
        if striking:
            for what, every in (
                ("kill", self.appetite.kill),
                ("stop", self.appetite.stop),
                ("terminate", self.appetite.terminate),
            ):
                if every and now >= self._due.setdefault(what, now + every * self.random.random()):
                    self._due[what] = now + every * (0.5 + self.random.random())
                    self._strike(what)

    def _strike(self, what: str) -> None:
        candidates = [slot for slot in self._slots if slot.quiet and self.boots(slot.pid)]
        if not candidates:
            return
        special = [slot for slot in candidates if slot.pid == self.prefer()] if what != "stop" else []
        slot = special[0] if special and self.random.random() < 0.75 else self.random.choice(candidates)
        if what == "terminate":
            slot.terminating_since = time.monotonic()
            self._note("terminate", slot)
            _send(slot, signal.SIGTERM)
            return
        deadly = signal.SIGKILL if what == "kill" else signal.SIGSTOP
        if self.random.random() < self.appetite.ambush_share:
            slot.ambushed = (time.monotonic() + AMBUSH_SECONDS, deadly)
            _send(slot, signal.SIGUSR1 if what == "kill" else signal.SIGUSR2)
        else:
            self._hit(slot, deadly)

    def _hit(self, slot: Slot, deadly: signal.Signals) -> None:
        _send(slot, deadly)
        if deadly is signal.SIGKILL:
            self._killed(slot)
        else:
            self._stopped(slot)

    def _killed(self, slot: Slot) -> None:
        assert slot.process is not None
        self._note("kill", slot)
        slot.process.wait()
        self._vacate(slot)

    def _stopped(self, slot: Slot) -> None:
        seconds = self.random.uniform(self.appetite.stopped_min, self.appetite.stopped_max)
        slot.ambushed = None
        slot.stopped_until = time.monotonic() + seconds
        self._note("stop", slot, seconds)

    def _vacate(self, slot: Slot) -> None:
        slot.process, slot.ambushed, slot.stopped_until, slot.terminating_since = None, None, None, None
        slot.vacant_until = time.monotonic() + self.random.uniform(0, self.appetite.vacant_max)

    def _look_after(self, slot: Slot, now: float) -> None:
        if slot.process is None:
            if now >= slot.vacant_until:
                self._spawn(slot)
            return
        code = slot.process.poll()
        if code is not None:
            self._ended(slot, code, now)
        elif slot.stopped_until is None and _is_stopped(slot.pid):
            self._stopped(slot)  # it walked into an ambush
        elif slot.stopped_until is not None:
            if now >= slot.stopped_until:
                slot.stopped_until = None
                self._note("continue", slot)
                _send(slot, signal.SIGCONT)
        elif slot.ambushed is not None:
            until, deadly = slot.ambushed
            if now >= until:
                self._hit(slot, deadly)
        elif slot.terminating_since is not None and now - slot.terminating_since > 30:
            self.troubles.append(f"pid {slot.pid} (slot {slot.number}) did not end in 30 s after SIGTERM; killed")
            self._hit(slot, signal.SIGKILL)

    def _ended(self, slot: Slot, code: int, now: float) -> None:
        if slot.ambushed is not None and code == -signal.SIGKILL:
            self._note("kill", slot)
        elif slot.terminating_since is not None and code == 0:
            self._note("ended", slot, now - slot.terminating_since)
        else:
            last_words = self._errors_of(slot).read_text(errors="replace")[-LAST_WORDS_MAX:]
            self.troubles.append(f"pid {slot.pid} (slot {slot.number}) ended with {code}, unasked: {last_words}")
        self._vacate(slot)

    def _note(self, what: str, slot: Slot, seconds: float = 0.0) -> None:
        self.deeds.append(Deed(at=time.monotonic(), what=what, pid=slot.pid, slot=slot.number, seconds=seconds))

    def count(self, what: str) -> int:
        return sum(deed.what == what for deed in self.deeds)

    @property
    def pids(self) -> list[int]:
        return [slot.pid for slot in self._slots if slot.process is not None]


def _send(slot: Slot, number: signal.Signals) -> None:
    """It may have ended by itself a moment ago: the next look will see it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(slot.pid, number)


def _is_stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in "Tt"
