"""Logging that names the instance: `ctx.logger`, which is silent while a body replays, and a filter for all others.

Lines of `ctx.logger` go to the loggers `edda.workflow` and `edda.activity`, those of the library itself to
`edda.engine`, `edda.outbox`, `edda.http` ... Each has the fields of `FIELDS` where they are known. Only the standard
library is used: handlers, levels and formats are the user's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from edda.context import Run, current_run

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter

FIELDS: Final = ("instance_id", "workflow", "worker", "claim", "activity", "attempt")
"""Attributes of a record. `activity` is the id of the call, such as `charge:1`; empty in a workflow function."""

WORKFLOW_LOGGER: Final = logging.getLogger("edda.workflow")
ACTIVITY_LOGGER: Final = logging.getLogger("edda.activity")


def fields_of(run: Run) -> dict[str, object]:
    """The fields of a line that is logged here."""
    info = run.attempt
    return {
        "instance_id": run.instance_id,
        "workflow": run.workflow_name,
        "worker": run.worker_id,
        "claim": run.claim,
        "activity": info.id if info is not None else "",
        "attempt": info.attempt if info is not None else 0,
    }


class ContextLogger(_Adapter):
    """What `ctx.logger` is. A line of a workflow function is logged when it happens, and not again when it replays."""

    def __init__(self, run: Run) -> None:
        super().__init__(WORKFLOW_LOGGER if run.attempt is None else ACTIVITY_LOGGER, {})
        self._run = run

    def isEnabledFor(self, level: int) -> bool:
        return not self._run.silent and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        given: Mapping[str, object] = kwargs.get("extra") or {}
        kwargs["extra"] = {**fields_of(self._run), **given}
        return msg, kwargs


class InstanceFilter(logging.Filter):
    """For a handler: gives every record the fields of `FIELDS`, so that a format may name them.

    Lines of any logger that are written in a workflow function or an activity get its fields; lines that concern no
    instance get empty ones. With `drop_replayed` (the default) a line that a workflow function writes while it replays
    is dropped, whatever logger it came from.
    """

    def __init__(self, *, drop_replayed: bool = True) -> None:
        super().__init__()
        self._drop_replayed = drop_replayed

    def filter(self, record: logging.LogRecord) -> bool:
        run = current_run.get()
        if run is not None and run.silent and self._drop_replayed and not _is_our_own(record):
            return False
        known = EMPTY if run is None else fields_of(run)
        for name in FIELDS:
            if not hasattr(record, name):
                setattr(record, name, known[name])
        return True


EMPTY: Final[Mapping[str, object]] = {
    "instance_id": "", "workflow": "", "worker": "", "claim": 0, "activity": "", "attempt": 0,
}  # fmt: skip


def _is_our_own(record: logging.LogRecord) -> bool:
    """What the library says is said once already; and a warning about a replay is meant to be heard."""
    return record.name.startswith("edda.") and record.name not in (WORKFLOW_LOGGER.name, ACTIVITY_LOGGER.name)
