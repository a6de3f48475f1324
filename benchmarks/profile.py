"""Where client CPU goes: W2 on one database, by function, own time first.

    python -m benchmarks.profile sqlite                    every call counted (cProfile): exact counts, inflated times
    python -m benchmarks.profile sqlite --sample           the stack is looked at as CPU time goes by: true shares
    python -m benchmarks.profile memory                    on the store in memory: the engine alone

Both watch the event loop's thread only. `--sample` charges what is written in C to the line of Python that calls it.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Final

from benchmarks.ceiling import STEPS
from benchmarks.steps import Edda
from tests.databases import fresh_database

TICK_SECONDS: Final = 0.001


class Sampler:
    """Counts which function and which line run whenever a millisecond of CPU has gone by."""

    def __init__(self) -> None:
        self.ticks = 0
        self.own: Counter[CodeType] = Counter()
        self.lines: Counter[tuple[CodeType, int]] = Counter()
        self.inclusive: Counter[CodeType] = Counter()

    def __enter__(self) -> Sampler:
        signal.signal(signal.SIGPROF, self._tick)
        signal.setitimer(signal.ITIMER_PROF, TICK_SECONDS, TICK_SECONDS)
        return self

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self.ticks += 1
        self.own[frame.f_code] += 1
        self.lines[frame.f_code, frame.f_lineno] += 1
        seen: set[CodeType] = set()
        while frame is not None:
            seen.add(frame.f_code)
            frame = frame.f_back
        self.inclusive.update(seen)

    def show(self, steps: int, cpu_seconds: float, *, top: int) -> None:
        us = cpu_seconds / self.ticks / steps * 1e6
        print(f"{self.ticks} samples, {cpu_seconds / steps * 1e6:.1f} us of CPU per step\n")
        print("  own us  incl. us  function")
        for code, count in self.own.most_common(top):
            print(f"{count * us:8.2f}  {self.inclusive[code] * us:8.2f}  {_place(code)}")
        print("\n  own us  share  module")
        modules = Counter[str]()
        for code, count in self.own.items():
            modules[_module(code)] += count
        for module, count in modules.most_common(top // 2):
            print(f"{count * us:8.2f}  {count / self.ticks:5.1%}  {module}")
        print("\n  own us  line")
        for (code, line), count in self.lines.most_common(top // 2):
            print(f"{count * us:8.2f}  {_place(code, line)}")


def _module(code: CodeType) -> str:
    return "/".join(code.co_filename.split("/")[-2:])


def _place(code: CodeType, line: int = 0) -> str:
    folders = code.co_filename.split("/")
    return f"{code.co_qualname}  {'/'.join(folders[-3:])}:{line or code.co_firstlineno}"


@contextmanager
def _counting(steps: int, *, top: int) -> Iterator[None]:
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
    stats = pstats.Stats(profile)
    stats.sort_stats("tottime")
    found = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:top]  # type: ignore[attr-defined]
    print(f"{stats.total_calls / steps:.0f} calls per step\n")  # type: ignore[attr-defined]
    print("  own us  incl. us  calls/step  function")
    for (file, line, name), (_, calls, own, inclusive, _) in found:
        place = f"{name}  {'/'.join(file.split('/')[-3:])}:{line}"
        print(f"{own / steps * 1e6:8.2f}  {inclusive / steps * 1e6:8.2f}  {calls / steps:10.2f}  {place}")


async def _run(kind: str, url: str, *, concurrency: int, workflows: int, sample: bool, top: int) -> None:
    async with Edda(kind, url) as edda:
        await edda.sample(workflows=max(100, concurrency), steps=STEPS, concurrency=concurrency)
        steps = workflows * STEPS
        if not sample:
            with _counting(steps, top=top):
                await edda.sample(workflows=workflows, steps=STEPS, concurrency=concurrency)
            return
        with Sampler() as sampler:
            seen = await edda.sample(workflows=workflows, steps=STEPS, concurrency=concurrency)
        sampler.show(steps, seen.loop_seconds, top=top)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", choices=("memory", "sqlite", "postgresql", "mysql"))
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--workflows", type=int, default=2000)
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--top", type=int, default=40)
    chosen = vars(parser.parse_args())
    kind = chosen.pop("database")
    with fresh_database("sqlite" if kind == "memory" else kind) as url:
        asyncio.run(_run(kind, url, **chosen))


if __name__ == "__main__":
    main()
