"""The progress bar: one line that is drawn again and again on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Final, TextIO

REDRAW_SECONDS: Final = 0.05
LINE_SECONDS: Final = 2.0
"""How often where lines stay, as in a log."""


class Progress:
    """Shows how far `total` things are. Call `show` as often as you like."""

    def __init__(self, total: int, *, stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._begun = time.monotonic()
        self._shown = float("-inf")
        self._done = 0
        self._doing = ""

    def show(self, done: int, doing: str) -> None:
        """`doing` says in a few words what goes on."""
        changed = doing != self._doing
        self._done, self._doing = done, doing
        if time.monotonic() - self._shown >= (REDRAW_SECONDS if self._live else LINE_SECONDS) or changed:
            self._draw()

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        self._write(f"{self._erased}{text}\n")
        if self._live:
            self._draw()

    def finish(self) -> None:
        self._draw()
        if self._live:
            self._write("\n")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    @property
    def _erased(self) -> str:
        return "\r\x1b[K" if self._live else ""

    def _draw(self) -> None:
        self._shown = time.monotonic()
        numbers = f"{self._done:>4} of {self._total} orders  {self.seconds:5.1f} s  {self._doing:<15}"
        if not self._live:
            self._write(f"{numbers.rstrip()}\n")
            return
        width = min(shutil.get_terminal_size().columns, 120) - len(numbers) - 5
        self._write(f"{self._erased}  {self._bar(max(width, 0))}  {numbers}")

    def _bar(self, width: int) -> str:
        full, empty = ("█", "░") if "utf" in (self._stream.encoding or "").lower() else ("#", ".")
        filled = width * self._done // self._total
        return full * filled + empty * (width - filled)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
