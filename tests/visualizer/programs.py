"""Random workflows as source text, run for real, with the true call site of every call noted while they run."""

from __future__ import annotations

import asyncio
import linecache
import random
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edda import EddaApp
from edda.activity import Activity
from edda.context import run_of
from edda.core.history import HistoryEvent

HEAD = """
import asyncio
from edda import RetryExhaustedError, RetryPolicy, WorkflowContext, activity, compensation, on_failure, workflow

once = RetryPolicy(max_attempts=1)


@compensation
async def {name}_undo(ctx: WorkflowContext, n: int) -> None: ...


@activity(name="{name}_a", retry_policy=once)
@on_failure({name}_undo)
async def a(ctx: WorkflowContext, n: int) -> int:
    if n > 6:
        raise ValueError("too many")
    return n


@activity(name="{name}_b", retry_policy=once)
async def b(ctx: WorkflowContext, n: int) -> int:
    if n > 5:
        raise ValueError("too many")
    return n + 1


"""


class Program:
    """Makes one workflow."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.name = f"drawn_{seed}"
        self.helpers: list[str] = []
        self.lines: list[str] = []
        body = self._block(1, loop=False, depth=0)
        helpers = "".join(self.helpers)
        head = HEAD.format(name=self.name)
        self.source = (
            f'{head}{helpers}@workflow(name="{self.name}")\nasync def main(ctx, n: int):\n' + "\n".join(body) + "\n"
        )

    def _block(self, indent: int, *, loop: bool, depth: int, helper: bool = False) -> list[str]:
        lines: list[str] = []
        for _ in range(self.random.randint(1, 3 if depth < 2 else 2)):
            lines += self._statement(indent, loop=loop, depth=depth, helper=helper)
        return lines

    def _argument(self) -> str:
        return self.random.choice(["n", "n + 1", "len(str(n)) + 1", "1", "2", "9 - n"])

    def _call(self) -> str:
        return f"{self.random.choice('ab')}(ctx, {self._argument()})"

    def _condition(self) -> str:
        return self.random.choice(["n % 2", "n > 3", "n < 5 and n != 2", "ctx.instance_id.endswith('x')"])

    def _statement(self, indent: int, *, loop: bool, depth: int, helper: bool) -> list[str]:
        pad = "    " * indent
        kinds = ["call"] * 4 + ["gather", "assign", "plain_error", "hidden_error"]
        if depth < 3:
            kinds += ["if", "if", "for", "try", "while", "match", "ternary", "group", "finally"]
        if loop:
            kinds += ["break", "continue"]
        if depth and self.random.random() < 0.5:
            kinds += ["return"]
        if not helper and len(self.helpers) < 2:
            kinds += ["helper", "helpers"]

        def block(more: int = 1, in_loop: bool = loop) -> list[str]:
            return self._block(indent + more, loop=in_loop, depth=depth + 1, helper=helper)

        match self.random.choice(kinds):
            case "call":
                return [f"{pad}await {self._call()}"]
            case "assign":
                return [f"{pad}n = (await {self._call()}) % 8"]
            case "plain_error":
                return [f"{pad}if n == 4: raise KeyError(n)"]
            case "hidden_error":
                return [f"{pad}n = [1, 2, 3, 5, 0][n]"]
            case "gather":
                parts = ", ".join(self._call() for _ in range(self.random.randint(1, 3)))
                more = self.random.choice(["", ", return_exceptions=True"])
                return [f"{pad}await asyncio.gather({parts}{more})"]
            case "group":
                calls = [f"{pad}    group.create_task({self._call()})" for _ in range(2)]
                return [f"{pad}async with asyncio.TaskGroup() as group:", *calls]
            case "ternary":
                return [f"{pad}n = (await {self._call()} if {self._condition()} else await {self._call()}) % 8"]
            case "if":
                otherwise = [f"{pad}else:", *block()] if self.random.random() < 0.6 else []
                return [f"{pad}if {self._condition()}:", *block(), *otherwise]
            case "for":
                return [f"{pad}for i in range({self.random.choice(['2', 'n % 3'])}):", *block(in_loop=True)]
            case "while":
                name = f"left_{indent}_{depth}"
                head = [f"{pad}{name} = n % 4", f"{pad}while {name} > 1:", f"{pad}    {name} -= 1"]
                return [*head, *block(in_loop=True)]
            case "match":
                cases = [[f"{pad}    case {pattern}:", *block(2)] for pattern in ("1 | 2", "int(k) if k > 4")]
                return [f"{pad}match n:", *cases[0], *cases[1]]
            case "try":
                caught = self.random.choice(["RetryExhaustedError", "Exception", "KeyError"])
                lines = [f"{pad}try:", *block(), f"{pad}except {caught}:", *block()]
                return lines + ([f"{pad}finally:", *block(in_loop=False)] if self.random.random() < 0.5 else [])
            case "finally":
                return [f"{pad}try:", *block(), f"{pad}finally:", *block(in_loop=False)]
            case "helper":
                return [f"{pad}await {self._helper()}(ctx, n)"]
            case "helpers":
                return [f"{pad}await asyncio.gather({self._helper()}(ctx, n), {self._call()})"]
            case "return":
                return [f"{pad}return {self.random.choice(['n', 'await ' + self._call()])}"]
            case other:
                return [f"{pad}if {self._condition()}: {other}"]

    def _helper(self) -> str:
        name = f"help_{len(self.helpers)}"
        self.helpers.append("")
        body = self._block(1, loop=False, depth=1, helper=True)
        self.helpers[int(name[5:])] = f"async def {name}(ctx, n):\n" + "\n".join(body) + "\n\n\n"
        return name

    def load(self) -> Any:
        """Its workflow, declared."""
        module = types.ModuleType(self.name)
        sys.modules[self.name] = module
        linecache.cache[self.name] = (len(self.source), None, self.source.splitlines(True), self.name)
        exec(compile(self.source, self.name, "exec"), module.__dict__)
        return module.main  # type: ignore[attr-defined]


def _call_site(frame: types.FrameType) -> str:
    position = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    return f"{position[0]}:{position[2]}"


@contextmanager
def noted_call_sites(file: str) -> Iterator[dict[str, str]]:
    """Call id -> `line:column` of each call of an activity made in a file. Replays make the same calls again."""
    sites: dict[str, str] = {}
    original = Activity.__call__

    def call(self: Any, ctx: Any, *args: Any, **kwargs: Any) -> Any:
        coroutine = original(self, ctx, *args, **kwargs)
        frame = sys._getframe(1)
        if frame.f_code.co_filename == file:
            sites[next(reversed(run_of(ctx).calls))] = _call_site(frame)  # type: ignore[attr-defined]
        return coroutine

    Activity.__call__ = call  # type: ignore[method-assign]
    try:
        yield sites
    finally:
        Activity.__call__ = original  # type: ignore[method-assign]


async def histories_of(app: EddaApp, workflow: Any, inputs: Sequence[int]) -> list[list[HistoryEvent]]:
    """Run it once for each input, and read what was recorded."""
    handles = [await app.start(workflow, n) for n in inputs]
    await asyncio.gather(*(handle.result(timeout=30) for handle in handles), return_exceptions=True)
    engine = await app._ready()  # type: ignore[attr-defined]
    found = await engine.store.histories(handles)
    return [found[handle] for handle in handles]
