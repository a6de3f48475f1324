"""Programs that run in processes of their own, so that they can be killed: `SIGKILL`, as a power cut for one process.

A program is a text with an `async def main()`; `program.py` says what it may use. Each start of it is a round; what it
notes and where it has crashed already is kept in files, over all its rounds.
"""

import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 30.0 if os.environ.get("EDDA_TEST_ENGINE") != "stub" else 3.0
"""For a start of Python with all imports, on a busy machine, and some work."""


class Program:
    """One program and all its runs."""

    def __init__(self, source: str, *, db_url: str, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._path = directory / "program.py"
        self._path.write_text(
            "from tests.acceptance.program import *\n" + textwrap.dedent(source) + "\n\nrun(main())\n", encoding="utf-8"
        )
        self._db_url = db_url
        self._started: list[Process] = []

    def start(self, role: str = "") -> "Process":
        """Run it now, beside whatever runs already."""
        process = Process(
            [sys.executable, str(self._path)],
            environment={
                "PYTHONPATH": str(ROOT),
                "EDDA_TEST_DB_URL": self._db_url,
                "EDDA_TEST_DIRECTORY": str(self.directory),
                "EDDA_TEST_ROUND": str(len(self._started) + 1),
                "EDDA_TEST_ROLE": role,
            },
            errors=self.directory / f"stderr-{len(self._started) + 1}",
        )
        self._started.append(process)
        return process

    def run(self, role: str = "") -> list[str]:
        """Run it to its end, which must be a good one; what it said."""
        return self.start(role).finish()

    def run_until_it_crashes(self, role: str = "") -> list[str]:
        """Run it to the crash that it brings about itself; what it said before."""
        return self.start(role).die()

    @property
    def notes(self) -> list[str]:
        """What all runs noted, in order."""
        path = self.directory / "notes"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def allow(self, point: str) -> None:
        """Let `await allowed(point)` go on, in every run."""
        (self.directory / f"allowed-{point}").touch()

    def kill_all(self) -> None:
        for process in self._started:
            process.kill()


class Process:
    """One run of a program."""

    def __init__(self, command: list[str], *, environment: dict[str, str], errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as stderr:
            self._popen = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        self.pid = self._popen.pid
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, line: str, *, within_seconds: float = SECONDS_MAX) -> None:
        """Wait until it has said this line."""
        deadline = time.monotonic() + within_seconds
        while line not in self.said:
            if not self._hear(deadline):
                raise AssertionError(f"it never said {line!r}, but {self.said}\n{self._complaints()}")

    def finish(self, *, within_seconds: float = SECONDS_MAX) -> list[str]:
        """Wait for its good end; what it said."""
        code = self._end(within_seconds)
        assert code == 0, f"it ended with {code}, having said {self.said}\n{self._complaints()}"
        return self.said

    def die(self, *, within_seconds: float = SECONDS_MAX) -> list[str]:
        """Wait for its end by SIGKILL; what it said."""
        code = self._end(within_seconds)
        assert code == -signal.SIGKILL, (
            f"it ended with {code}, not by SIGKILL; it said {self.said}\n{self._complaints()}"
        )
        return self.said

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def _end(self, within_seconds: float) -> int:
        deadline = time.monotonic() + within_seconds
        while self._hear(deadline):
            pass
        try:
            return self._popen.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; it said {self.said}\n{self._complaints()}") from None

    def _hear(self, deadline: float) -> bool:
        """Hear one more line; False where none came, at the end or the deadline."""
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return False
        if line is None:
            self._lines.put(None)
            return False
        self.said.append(line)
        return True

    def _complaints(self) -> str:
        return self._errors.read_text(encoding="utf-8", errors="replace")[-4000:]
