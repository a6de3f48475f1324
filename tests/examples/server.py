"""An example as it is run: uvicorn in a process and a directory of its own, killed and started again."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 45.0


class Server:
    """The one command that the README of an example names, on a free port."""

    def __init__(self, example: str, directory: Path, **environment: str) -> None:
        readme = (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8")
        command = re.search(r"```sh\n(uvicorn .+?)\n```", readme)
        assert command is not None, f"{example}/README.md names no command"
        words = shlex.split(re.sub(r"--port \d+", "--port 0", command[1]))
        self._command = [str(ROOT / word) if word.startswith("examples/") else word for word in words]
        self._directory = directory
        self._environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | environment
        self.said: list[str] = []
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._command],
            cwd=self._directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        begin = len(self.said)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self.hears(r"running on (http://\S+)", begin=begin)
        self._client = httpx2.Client(base_url=self.url, timeout=SECONDS_MAX, trust_env=False)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.said.append(line.rstrip("\n"))

    def hears(self, pattern: str, *, begin: int = 0) -> str:
        """Wait until it has said this, now or in an earlier life; the first group, or the whole."""
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            for line in self.said[begin:]:
                if found := re.search(pattern, line):
                    return found[1] if found.groups() else found[0]
            time.sleep(0.01)
        raise AssertionError(f"never heard {pattern!r}:\n" + "\n".join(self.said))

    def count(self, pattern: str) -> int:
        return sum(1 for line in self.said if re.search(pattern, line))

    def is_waiting(self, database: str) -> None:
        """Wait until an instance waits for an event, as its row says: what it did before is recorded."""
        self._row_of(database, "waiting_for_event")

    def result(self, database: str) -> Any:
        """Wait until an instance has completed."""
        return json.loads(self._row_of(database, "completed"))

    def _row_of(self, database: str, status: str) -> Any:
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            with closing(sqlite3.connect(self._directory / database)) as connection:
                row = connection.execute("SELECT output FROM edda_instance WHERE status = ?", (status,)).fetchone()
            if row is not None:
                return row[0]
            time.sleep(0.01)
        raise AssertionError(f"nothing is {status} in {database}:\n" + "\n".join(self.said))

    def kill(self) -> None:
        """SIGKILL; what it has said stays known."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._client.close()

    def kill_and_start(self) -> None:
        self.kill()
        self.start()

    def request(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a good answer."""
        response = self._client.request(method, path, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    def event(self, path: str, event_id: str, event_type: str, data: object) -> None:
        headers = {"ce-specversion": "1.0", "ce-id": event_id, "ce-source": "/test", "ce-type": event_type}
        self.request("POST", path, json=data, headers=headers)

    def reaches(self, path: str, **wanted: str) -> dict[str, str]:
        """Ask again and again until the answer has these members."""
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            answer: dict[str, str] = self.request("GET", path)
            if wanted.items() <= answer.items():
                return answer
            assert time.monotonic() < deadline, f"{path} is {answer}, not {wanted}"
            time.sleep(0.02)
