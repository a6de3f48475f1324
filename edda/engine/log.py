"""The engine's log. A handler of the user's that raises must not become a failure of an instance or of a worker.

Much is logged in the middle of what has to be done whole: between a commit and what follows from it, say.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class CarefulLogger(_Adapter):
    """Says on stderr what a handler or filter raised, as handlers of the standard library do, and goes on."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception:
            if logging.raiseExceptions and sys.stderr is not None:
                print("--- Logging error ---", file=sys.stderr)  # noqa: T201 - nothing else is left to say it
                traceback.print_exc(file=sys.stderr)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


log: Final = CarefulLogger(logging.getLogger("edda.engine"), {})
