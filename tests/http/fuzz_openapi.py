"""schemathesis against a real app behind uvicorn: no answer is a 5xx, and `openapi.json` names each of them.

    python -m tests.http.fuzz_openapi --cases 20000

The app runs in a process of its own, on SQLite. A third of the requests are about instances and callbacks that there
are. In the end it must be well, and have grown by little since the first quarter of the cases.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from tests.http.fuzz_checks import CHECKS, DOCUMENT

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 10.0
"""For one answer: more is a hang."""
KNOWN_EVERY = 50
TOLD_EVERY = 1000
PROBES_MAX = 200
"""Requests of one probe: there is little to vary."""
GROWTH_MAX_MIB = 32.0


@dataclass
class Report:
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter[str])
    """By operation and status."""
    rss_mib: list[float] = field(default_factory=list[float])
    """At the beginning, after every thousand cases, and at the end."""
    violations: list[str] = field(default_factory=list[str])

    @property
    def cases(self) -> int:
        return self.statuses.total()

    def __str__(self) -> str:
        rss = " -> ".join(f"{each:.1f}" for each in self.rss_mib)
        lines = [f"{self.cases} cases in {self.seconds:.0f} s, memory of the app {rss} MiB"]
        lines += [f"  {name}: {count}" for name, count in sorted(self.statuses.items())]
        return "\n".join([*lines, *(f"VIOLATION {each}" for each in self.violations)])


class Fuzz:
    """The requests that are made of one app."""

    def __init__(self, url: str, process: psutil.Process, seed: int) -> None:
        self._url = url
        self._process = process
        self._random = Random(seed)
        self._seed = seed
        self._known: dict[str, list[str]] = {}
        self._schema = schemathesis.openapi.from_dict(DOCUMENT)
        self._session = requests.Session()
        self.report = Report()

    def run(self, cases: int) -> Report:
        began = time.monotonic()
        self._measure()
        try:
            self._rounds(cases)
            self.report.violations += self._end()
        except BaseException as error:  # a check of schemathesis, a hang, an app that is gone
            self.report.violations.append(f"{type(error).__name__}: {error}")
        self.report.seconds = time.monotonic() - began
        return self.report

    def _measure(self) -> None:
        self.report.rss_mib.append(self._process.memory_info().rss / 2**20)

    def _end(self) -> Iterator[str]:
        for probe in ("healthz", "readyz"):
            if self._session.get(f"{self._url}/{probe}", timeout=SECONDS_MAX).status_code != 200:
                yield f"/{probe} says that the app is not well"
        self._measure()
        # What is loaded with the first requests, and caches that fill, are no leak.
        early, last = self.report.rss_mib[len(self.report.rss_mib) // 4], self.report.rss_mib[-1]
        if last - early > GROWTH_MAX_MIB:
            yield f"the app grew by {last - early:.1f} MiB in three quarters of the cases"

    def _rounds(self, cases: int) -> None:
        """Until there are so many. A strategy ends early where it has no more to try, so there are several rounds."""
        number = 0
        operations = [operation.ok() for operation in self._schema.get_all_operations()]
        while self.report.cases < cases:
            for operation in operations:
                some = -(-(cases - self.report.cases) // len(operations))
                if operation.method == "get":
                    some = min(some, PROBES_MAX) if number == 0 else 0
                if some > 0:
                    self._round(operation, some, number)
            number += 1

    def _round(self, operation: Any, cases: int, number: int) -> None:
        modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

        @seed(self._seed * 1000 + number)
        @settings(
            max_examples=cases,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(case=st.one_of(modes))
        def ask(case: Any) -> None:
            self._ask(case)

        ask()

    def _ask(self, case: Any) -> None:
        if self.report.cases % TOLD_EVERY == 0:
            self._measure()
            print(f"{self.report.cases} cases, memory of the app {self.report.rss_mib[-1]:.1f} MiB", file=sys.stderr)
        if self.report.cases % KNOWN_EVERY == 0:
            answer = self._session.get(f"{self._url}/known", timeout=SECONDS_MAX)
            answer.raise_for_status()
            self._known = answer.json()
        if self._random.random() < 1 / 3:
            self._aim(case)
        response = case.call(base_url=self._url, session=self._session, timeout=SECONDS_MAX)
        self.report.statuses[f"{case.method} {case.path} {response.status_code}"] += 1
        case.validate_response(response, checks=CHECKS)

    def _aim(self, case: Any) -> None:
        """At what there is."""
        instances = [*self._known["waiting"], *self._known["ended"]]
        if "instance_id" in case.path_parameters and instances:
            case.path_parameters["instance_id"] = self._random.choice(instances)
        elif "token" in case.path_parameters and self._known["tokens"]:
            case.path_parameters["token"] = self._random.choice(self._known["tokens"])
        elif isinstance(case.body, dict) and instances:
            instance = self._random.choice(instances)
            case.body |= {
                "type": self._known["types"][0],
                "datacontenttype": "application/json",
                "data": {"instance": instance},
            }
            case.body.pop("data_base64", None)
            if self._random.random() < 0.5:
                case.body["eddainstanceid"] = instance


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The target in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # uvicorn takes what it inherits for a Unix socket, and would leave this out: each answer took 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arguments = ["uvicorn", "tests.http.fuzz_target:target", "--fd", str(listener.fileno()), "--log-level", "error"]
        environment = os.environ | {"EDDA_FUZZ_URL": f"sqlite:///{directory}/fuzz.db", "PYTHONPATH": str(ROOT)}
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (directory / "target.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT, env=environment, pass_fds=[listener.fileno()], stdout=log, stderr=log,
            )  # fmt: skip
        try:
            # The listener is there already: this waits until the app answers.
            requests.get(f"{url}/readyz", timeout=60).raise_for_status()
            yield url, psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def fuzz(cases: int, seed: int) -> Report:
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as (url, process):
        report = Fuzz(url, process, seed).run(cases)
        log = (Path(directory) / "target.log").read_text(errors="replace")
    report.violations += [f"the app complained: {log[-2000:]}"] if log else []
    return report


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    report = fuzz(chosen.cases, chosen.seed)
    print(report, flush=True)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
