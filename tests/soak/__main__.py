"""`./run soak`: the long versions of the tests, one after another, run before an issue is closed.

It only starts programs that can be started alone, too, each with a seed, and prints the command of each. It ends with 0
when all of them did.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One program. `minutes` is what it takes on two quiet cores."""

    name: str
    about: str
    module: str
    arguments: tuple[str, ...]
    minutes: float

    def command(self, seed: int) -> list[str]:
        seeded = [argument.replace("{seed}", str(seed)) for argument in self.arguments]
        return [sys.executable, "-m", self.module, *seeded]


def _kill(database: str, *more: str, minutes: float) -> Run:
    presence = "without" if "--no-presence" in more else "with"
    return Run(
        name=f"kill-{database}{'-no-presence' if '--no-presence' in more else ''}",
        about=f"2,000 workflows, processes killed and stopped every few seconds, {presence} presence",
        module="tests.process.kill_test",
        arguments=("--database", database, "--workflows", "2000", "--seconds", "400", "--seed", "{seed}", *more),
        minutes=minutes,
    )


def _pairs(database: str, *, minutes: float) -> Run:
    return Run(
        name=f"verb-pairs-{database}",
        about="each verb of storage stopped before each of its statements while each other one runs",
        module="tests.storage.verb_pairs",
        arguments=("--database", database),
        minutes=minutes,
    )


def _relay(database: str, *, minutes: float) -> Run:
    return Run(
        name=f"relay-{database}",
        about="relayers killed and stopped, a broker on a bad day and then away for a minute",
        module="tests.process.relay_test",
        arguments=("--database", database, "--workflows", "600", "--seed", "{seed}"),
        minutes=minutes,
    )


def _crash_matrix(database: str) -> Run:
    return Run(
        name=f"crash-matrix-{database}",
        about="a process dies at every commit boundary of the canonical workflows, before it and after it",
        module="tests.simulation.crash_matrix",
        arguments=("--database", database),
        minutes=1,
    )


RUNS: Final = (
    Run(
        name="body-loop",
        about="20,000 random programs, evicted at random, replay to the same result",
        module="tests.engine.test_body_loop_programs",
        arguments=("--programs", "20000"),
        minutes=2,
    ),
    Run(
        name="simulation",
        about="200,000 schedules of workers, crashes and lost answers on a virtual clock",
        module="tests.simulation",
        arguments=("--schedules", "200000"),
        minutes=55,
    ),
    _pairs("postgresql", minutes=2),
    _pairs("mysql", minutes=3),
    _crash_matrix("sqlite"),
    _crash_matrix("postgresql"),
    _crash_matrix("mysql"),
    _kill("postgresql", minutes=8),
    _kill("mysql", minutes=8),
    _kill("sqlite", minutes=8),
    _kill("postgresql", "--no-presence", minutes=8),
    _kill("mysql", "--no-presence", minutes=8),
    _relay("postgresql", minutes=4),
    _relay("mysql", minutes=4),
    _relay("sqlite", minutes=4),
)


def main(arguments: list[str]) -> int:
    names = [run.name for run in RUNS]
    parser = argparse.ArgumentParser(
        prog="./run soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="runs: " + "; ".join(f"{run.name} (about {run.minutes:g} min)" for run in RUNS),
    )
    parser.add_argument("only", nargs="*", metavar="run", help=f"one of {', '.join(names)}; default: all")
    parser.add_argument("--skip", nargs="*", default=[], choices=names, metavar="run")
    parser.add_argument("--seed", type=int, default=1, help="of the kill tests")
    parser.add_argument("--list", action="store_true", help="show the commands, run nothing")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.only) - set(names):
        parser.error(f"there is no run {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    runs = [run for run in RUNS if run.name not in chosen.skip and (not chosen.only or run.name in chosen.only)]
    if chosen.list:
        for run in runs:
            print(f"{run.name}: {run.about}; about {run.minutes:g} min\n    {shlex.join(run.command(chosen.seed))}")
        return 0
    print(f"{len(runs)} runs, about {sum(run.minutes for run in runs):g} minutes", flush=True)
    codes = {run.name: _start(run, chosen.seed) for run in runs}
    failed = [name for name, code in codes.items() if code != 0]
    print(f"\n{len(codes) - len(failed)} of {len(codes)} runs are good")
    print(f"failed: {', '.join(failed)}" if failed else "nothing failed")
    return 1 if failed else 0


def _start(run: Run, seed: int) -> int:
    command = run.command(seed)
    print(f"\n=== {run.name}: {run.about} (about {run.minutes:g} min)\n$ {shlex.join(command)}", flush=True)
    began = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    print(f"=== {run.name}: {'good' if code == 0 else f'FAILED with {code}'} after {time.monotonic() - began:.0f} s")
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
