"""The kill test: real processes on a real database, killed, stopped and terminated while they work; then the verdict.

    python -m tests.process.kill_test --database postgresql --workflows 2000 --seconds 300 --lease 2 --seed 1

Four worker processes on a server; on SQLite three processes of which one is the worker, and the others start workflows
and wait for its place. It ends with 0 when no law is broken and enough happened to mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.databases import available, fresh_database
from tests.process import checker, programs
from tests.process.checker import Dump, Growth, Violation
from tests.process.nemesis import TICK_SECONDS, Appetite, Deed, Nemesis, poll
from tests.process.worker_main import instance_id, read_log

SNAPSHOT_SECONDS: Final = 20.0
DRAIN_SECONDS: Final = 60.0
"""After the last strike: a lease, a poll, and the work that is left on a machine that others use, too."""

EXPECTED_LOGS: Final = (
    "was declared dead; what it held goes on elsewhere",
    "of its instances go on elsewhere",
    "failed in attempt",
    "failed for good",
    "ended as failed",
    "another process works on this database",
    "is lost; it goes on elsewhere",
    "Two processes write to",
)
"""What the library may say at warning level when processes die around it. The rest is shown in the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run."""

    database: str
    workflows: int
    seconds: float
    """In which the workflows are started; the strikes last as long."""
    lease: float = 2.0
    seed: int = 1
    presence: bool = True
    appetite: Appetite = field(default_factory=Appetite)
    takeovers_min: int = 60
    refusals_min: int = 20
    keep: Path | None = None
    """Where the logs of the processes stay; else they are removed."""

    @property
    def slots(self) -> int:
        return 3 if self.database == "sqlite" else 4


@dataclass(slots=True, kw_only=True)
class Report:
    """What came out."""

    plan: Plan
    figures: dict[str, Any]
    violations: list[Violation]
    troubles: list[str]
    noise: Counter[str]
    void: list[str]

    @property
    def good(self) -> bool:
        return not self.violations and not self.troubles and not self.void

    def __str__(self) -> str:
        width = max(map(len, self.figures))
        lines = [f"{name:<{width}}  {value}" for name, value in self.figures.items()]
        lines += [f"!!! {violation}"[:400] for violation in self.violations[:40]]
        lines += [f"!!! {trouble}" for trouble in self.troubles[:20]]
        lines += [f"VOID: {reason}" for reason in self.void]
        lines += [f"log {count} x {message}" for message, count in self.noise.most_common(25)]
        return "\n".join(lines)


def run(plan: Plan) -> Report:
    """Start, strike, wait for the end, judge."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(fresh_database(plan.database))
        directory = plan.keep or Path(tempfile.mkdtemp(prefix="edda_kill_"))
        directory.mkdir(parents=True, exist_ok=True)
        if plan.keep is None:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        checker.execute(url, programs.CREATE_EFFECT)
        return Run(plan, url, directory).whole()


class Run:
    """One run on one database."""

    def __init__(self, plan: Plan, url: str, directory: Path) -> None:
        self._plan = plan
        self._url = url
        self._directory = directory
        self._began = time.monotonic()
        self._growth = Growth()
        self._violations: list[Violation] = []
        self._snapshot: Future[list[Violation]] | None = None
        self._reader = ThreadPoolExecutor(max_workers=1)
        self._nemesis = Nemesis(
            arguments=self._arguments,
            slots=plan.slots,
            random=Random(plan.seed),
            appetite=plan.appetite,
            directory=directory,
            prefer=self._sqlite_worker if plan.database == "sqlite" else lambda: None,
            boots=self._has_booted,
        )
        self._booted: set[int] = set()
        self._special: tuple[float, int | None] = (0.0, None)

    def _log_path(self, slot: int) -> Path:
        return self._directory / f"slot-{slot}.jsonl"

    def _arguments(self, slot: int) -> list[str]:
        plan = self._plan
        url = self._url
        if not plan.presence and plan.database == "postgresql":
            url += "?pgbouncer=1"
        arguments = (
            *("--url", url, "--log", self._log_path(slot), "--slot", slot, "--slots", plan.slots),
            *("--workflows", plan.workflows, "--rate", plan.workflows / plan.slots / plan.seconds),
            *("--lease", plan.lease, "--seed", plan.seed),
            *(() if plan.presence else ("--no-presence",)),
        )
        return list(map(str, arguments))

    def _logs(self) -> list[dict[str, Any]]:
        paths = [self._log_path(slot) for slot in range(self._plan.slots)]
        return [line for path in paths if path.exists() for line in read_log(path)]

    def _has_booted(self, pid: int) -> bool:
        """Whether it has come as far as to work; looked up once, in its log."""
        if pid not in self._booted:
            for slot in range(self._plan.slots):
                path = self._log_path(slot)
                if path.exists() and f'"p": {pid}, "e": "up"' in path.read_text(encoding="utf-8", errors="replace"):
                    self._booted.add(pid)
        return pid in self._booted

    def _sqlite_worker(self) -> int | None:
        looked, pid = self._special
        if time.monotonic() - looked > 0.3:
            ids = checker.alive(self._url)
            pid = int(ids[-1].rsplit("-", 2)[1]) if ids else None
            self._special = (time.monotonic(), pid)
        return pid

    # -- the course --------------------------------------------------------------------------------------------------

    def whole(self) -> Report:
        plan = self._plan
        try:
            self._nemesis.begin()
            started = self._strike()
            quiet_since = time.monotonic()
            drained = self._drain()
            drain_seconds = time.monotonic() - quiet_since
            self._nemesis.end()
        finally:
            self._nemesis.abort()
            self._reader.shutdown(wait=True)
        self._collect_snapshot()
        final = checker.dump(self._url)
        self._violations += self._growth.look(final)
        logs = self._logs()
        self._judge(final, logs)
        troubles = list(self._nemesis.troubles)
        if not started:
            troubles.append(f"not all of {plan.workflows} workflows could be started")
        if not drained:
            troubles.append(f"not everything ended within {DRAIN_SECONDS} s after the last strike")
        figures = self._figures(final, logs, drain_seconds)
        return Report(
            plan=plan,
            figures=figures,
            violations=self._violations,
            troubles=troubles,
            noise=_noise(logs),
            void=self._void(figures),
        )

    def _strike(self) -> bool:
        """Until all are started, and the time is over. False if the starting does not come to an end."""
        plan = self._plan
        deadline = self._began + 2.5 * plan.seconds + 60
        looked = snapped = time.monotonic()
        while time.monotonic() < deadline:
            now = time.monotonic()
            self._nemesis.tick(striking=True)
            if now - snapped > SNAPSHOT_SECONDS:
                snapped = now
                self._take_snapshot()
            if now - looked > 1.0 and now - self._began > plan.seconds:
                looked = now
                if self._all_started():
                    return True
            time.sleep(TICK_SECONDS)
        return False

    def _all_started(self) -> bool:
        done = {line["n"] for line in self._logs() if line["e"] == "started"}
        return len(done) == self._plan.workflows

    def _drain(self) -> bool:
        """No more strikes; what was broken is mended. Until everything has ended."""

        def ended() -> bool:
            self._nemesis.tick(striking=False)
            counts = checker.statuses(self._url)
            return all(status in checker.LAST for status in counts)

        return bool(poll(ended, seconds_max=DRAIN_SECONDS, every=0.1))

    # -- judging -----------------------------------------------------------------------------------------------------

    def _take_snapshot(self) -> None:
        """The laws hold in every committed snapshot, not only at the end."""
        if self._snapshot is not None and not self._snapshot.done():
            return
        self._collect_snapshot()

        def look() -> list[Violation]:
            dump = checker.dump(self._url)
            return [*checker.violations_of(dump), *self._growth.look(dump)]

        self._snapshot = self._reader.submit(look)

    def _collect_snapshot(self) -> None:
        if self._snapshot is not None:
            self._violations += self._snapshot.result()
            self._snapshot = None

    def _judge(self, final: Dump, logs: Sequence[dict[str, Any]]) -> None:
        started = [instance_id(line["n"]) for line in logs if line["e"] == "started"]
        cancelled = [instance_id(line["n"]) for line in logs if line["e"] == "cancelled"]
        found: Iterable[Violation] = itertools.chain(
            checker.violations_of(final),
            checker.everything_ended(final),
            checker.everything_started_is_there(final, started, self._plan.workflows),
            checker.results_are_right(final, self._plan.seed),
            checker.cancels_hold(final, cancelled),
            checker.failures_are_bounded(final),
            checker.claims_are_unique(logs),
            checker.no_late_entry(final, logs),
        )
        self._violations = list(dict.fromkeys([*self._violations, *found]))

    def _figures(self, final: Dump, logs: Sequence[dict[str, Any]], drain_seconds: float) -> dict[str, Any]:
        nemesis, plan = self._nemesis, self._plan
        reaps = [line for line in logs if line["e"] == "reap"]
        resumed = resumptions(nemesis.deeds, logs)
        refused = {line["worker"] for line in logs if line["e"] == "fenced"}
        late = {line["worker"] for line in logs if line["e"] == "fenced" and line["where"] != "renew"}
        handed = handovers(logs)
        return {
            "database": f"{plan.database}, {'with' if plan.presence else 'without'} presence, lease {plan.lease} s, "
            f"seed {plan.seed}",
            "workflows": f"{len(final.instances)} ({plan.workflows} roots): {dict(final.statuses())}",
            "history rows": final.rows,
            "effect rows": len(final.effects),
            "processes": nemesis.count("spawn"),
            "SIGKILLs": nemesis.count("kill"),
            "SIGSTOPs": nemesis.count("stop"),
            "SIGTERMs": nemesis.count("terminate"),
            "takeovers": len(reaps),
            "instances taken over": sum(len(line["freed"]) + len(line["quarantined"]) for line in reaps),
            "quarantined, and repaired": sum(len(line["quarantined"]) for line in reaps),
            "workers refused after a pause": len(refused),
            "of them at a late commit": f"{len(late)} {dict(Counter(x['where'] for x in logs if x['e'] == 'fenced'))}",
            "claims lost": sum(len(line["ids"]) for line in logs if line["e"] == "claim-lost"),
            "unknown outcomes settled": sum(line["e"] == "settle" for line in logs),
            "reap took": _quantiles([line["seconds"] for line in reaps]),
            "kill to resumption": _quantiles(resumed["kill"]),
            "the same, nobody paused": _quantiles(resumed["calm"]),
            "stop to resumption": _quantiles(resumed["stop"]),
            "SIGTERM to end of process": _quantiles([deed.seconds for deed in nemesis.deeds if deed.what == "ended"]),
            "clean hand-over": _quantiles(handed),
            "drained in": f"{drain_seconds:.1f} s",
            "snapshots checked": self._growth.snapshots,
            "took": f"{time.monotonic() - self._began:.0f} s",
            "violations": len(self._violations),
        }

    def _void(self, figures: dict[str, Any]) -> list[str]:
        plan = self._plan
        reasons: list[str] = []
        if figures["takeovers"] < plan.takeovers_min:
            reasons.append(f"{figures['takeovers']} takeovers, at least {plan.takeovers_min} were to be seen")
        if plan.database != "sqlite" and figures["workers refused after a pause"] < plan.refusals_min:
            reasons.append(f"fewer than {plan.refusals_min} workers came back from a pause and were refused")
        return reasons


# -- figures -----------------------------------------------------------------------------------------------------------


def resumptions(deeds: Sequence[Deed], logs: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Seconds from a kill (a stop) to the claim of each instance that the victim held.

    "calm": those kills where no other process was paused meanwhile, which might have been just about to take over.
    """
    pauses = [(deed.at, deed.at + deed.seconds) for deed in deeds if deed.what == "stop"]
    strikes: dict[int, list[tuple[float, str, float]]] = {}
    exact = {line["p"]: line["t"] for line in logs if line["e"] == "ambush" and line["signal"] == "SIGKILL"}
    for deed in deeds:
        if deed.what in ("kill", "stop"):
            at = exact.get(deed.pid, deed.at) if deed.what == "kill" else deed.at
            strikes.setdefault(deed.pid, []).append((at, deed.what, at + deed.seconds))
    claims: dict[str, list[float]] = {}
    for line in logs:
        if line["e"] == "claim":
            for claimed, _ in line["ids"]:
                claims.setdefault(claimed, []).append(line["t"])
    seconds: dict[str, list[float]] = {"kill": [], "stop": [], "calm": []}
    for line in logs:
        if line["e"] != "reap":
            continue
        pid = int(line["dead"].rsplit("-", 2)[1])
        before = [strike for strike in strikes.get(pid, []) if strike[0] <= line["t"]]
        if not before:
            continue
        at, what, until = max(before)
        if what == "stop" and line["t"] > until + 1:  # it had survived that pause
            continue
        for freed in line["freed"]:
            # The reaper's line is written after the commit: a claim may stand a moment before it.
            after = [t for t in claims.get(freed, []) if t > line["t"] - line["seconds"]]
            if after:
                seconds[what].append(min(after) - at)
                if what == "kill" and not any(begun < min(after) and at < ended for begun, ended in pauses):
                    seconds["calm"].append(min(after) - at)
    return seconds


def handovers(logs: Sequence[dict[str, Any]]) -> list[float]:
    """Seconds from a clean worker's goodbye to the next claim of what it held."""
    claims: dict[str, list[float]] = {}
    for line in logs:
        if line["e"] == "claim":
            for claimed, _ in line["ids"]:
                claims.setdefault(claimed, []).append(line["t"])
    seconds: list[float] = []
    for line in logs:
        if line["e"] == "retire":
            for held in line["held"]:
                after = [t for t in claims.get(held, []) if t > line["t"] - 0.05]
                if after:
                    seconds.append(min(after) - line["t"])
    return seconds


def _quantiles(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"median {statistics.median(ordered):.2f} s, p99 {p99:.2f} s, max {ordered[-1]:.2f} s (n={len(ordered)})"


def _noise(logs: Iterable[dict[str, Any]]) -> Counter[str]:
    """What the library complained of, without the numbers."""
    counts: Counter[str] = Counter()
    for line in logs:
        if line["e"] == "log" and not any(known in line["message"] for known in EXPECTED_LOGS):
            words = "".join("#" if character.isdigit() else character for character in line["message"][:260])
            while "##" in words:
                words = words.replace("##", "#")
            counts[f"{line['level']} {line['logger']}: {words}"] += 1
        elif line["e"] == "start-failed":
            counts[f"start failed: {line['error'][:160]}"] += 1
    return counts


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "mysql"], required=True)
    parser.add_argument("--workflows", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--lease", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-presence", action="store_true")
    parser.add_argument("--kill-every", type=float, default=4.0)
    parser.add_argument("--stop-every", type=float, default=9.0)
    parser.add_argument("--terminate-every", type=float, default=20.0)
    parser.add_argument("--takeovers-min", type=int, default=60)
    parser.add_argument("--refusals-min", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="directory for the logs of the processes")
    chosen = parser.parse_args(arguments)
    available()
    report = run(
        Plan(
            database=chosen.database,
            workflows=chosen.workflows,
            seconds=chosen.seconds,
            lease=chosen.lease,
            seed=chosen.seed,
            presence=not chosen.no_presence,
            appetite=Appetite(
                kill=chosen.kill_every,
                stop=chosen.stop_every,
                terminate=chosen.terminate_every,
                stopped_min=1.5 * chosen.lease,
                stopped_max=3 * chosen.lease,
            ),
            takeovers_min=chosen.takeovers_min,
            refusals_min=chosen.refusals_min,
            keep=chosen.keep,
        )
    )
    print(report, flush=True)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
