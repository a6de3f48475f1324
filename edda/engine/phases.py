"""The phases of an instance's life, as the driver sees them.

A phase decides and the driver acts: `pump` deals with what has arrived and says what is to be written, which phase
comes next, or that there is only waiting to do. A phase never writes, begins attempts or sets alarms itself.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple, Protocol

from edda.core.commit import STAY, RowChange
from edda.core.history import InstanceId


class Write(NamedTuple):
    """Write what is drafted, and this change of the row."""

    row: RowChange = STAY
    wakes: tuple[InstanceId, ...] = ()
    cancels: tuple[InstanceId, ...] = ()


STEP: Final = Write()
"""Rows of history only."""


class Pause(Enum):
    """Nothing is to be written."""

    PROCEED = "begin what was asked for, and wait"
    AGAIN = "let others run, then pump again"


class Phase(Protocol):
    """One of `BodyPhase`, `SettlingPhase`, `UndoingPhase`."""

    def pump(self) -> Write | Pause | Phase:
        """Deal with what has arrived."""
        ...

    def collect_due(self, now_us: int) -> bool:
        """Move what is due to what has arrived. True: there is something to pump."""
        ...

    def earliest_due_us(self) -> int | None: ...

    @property
    def looking(self) -> bool:
        """An answer of the database is being waited for."""
        ...

    def when_idle(self, due_us: int | None) -> RowChange:
        """Nothing runs, nothing has arrived: how to park, or to be set aside."""
        ...

    def evict(self) -> None:
        """Give up what is in memory; a later claim builds it anew."""
        ...
