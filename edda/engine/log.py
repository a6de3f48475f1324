"""The engine's log."""

from __future__ import annotations

from typing import Final

from edda.careful_log import CarefulLogger

log: Final = CarefulLogger("edda.engine")
