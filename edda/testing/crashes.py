"""Crash a workflow at each of its commits, and see that it comes to the same end.

A workflow may die anywhere, but what it does between two commits is forgotten as a whole. So two crashes for each
commit are all there are: right before it is written (what was done is done, and unknown) and right after (it is
durable, and nothing that follows has begun).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from edda.activity import activities
from edda.testing.app import InMemoryApp
from edda.testing.fakes import Calls
from edda.testing.mortal_store import When
from edda.workflow import Workflow, WorkflowHandle

P = ParamSpec("P")
R = TypeVar("R")

COMMITS_MAX: Final = 10_000
"""A workflow with more than that, or one that is never at its end, is no subject for this."""

BOTH: Final[tuple[When, ...]] = ("before", "after")


class CrashFoundError(AssertionError):
    """A crash made a difference. `point` says where, `expected` and `found` what the workflow came to."""

    def __init__(self, message: str, *, point: CrashPoint, expected: str, found: str) -> None:
        super().__init__(message)
        self.point = point
        self.expected = expected
        self.found = found


class CrashPoint(NamedTuple):
    """Where the process was killed: before the `commit`-th commit was written, or after. `what` was written."""

    commit: int
    when: When
    what: str

    def __str__(self) -> str:
        return f"crash {self.when} commit {self.commit} ({self.what})"


class CrashTest:
    """How to try crashes: `await CrashTest(meanwhile=pay).run(order, "ORD-1")`.

    Args:
        prepare: Called before the start, to make your tables: `await app.create_tables(Base.metadata)`.
        meanwhile: Called after the start, to bring about what the workflow waits for: `await app.deliver(...)`.
        check: Called when it has ended, to look at what it left behind; raises AssertionError.
        make_app: An app for each run, by default `InMemoryApp()`.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[InMemoryApp], Awaitable[object]] | None = None,
        meanwhile: Callable[[InMemoryApp, WorkflowHandle[Any]], Awaitable[object]] | None = None,
        check: Callable[[InMemoryApp], Awaitable[object]] | None = None,
        make_app: Callable[[], InMemoryApp] = InMemoryApp,
    ) -> None:
        self._prepare = prepare
        self._meanwhile = meanwhile
        self._check = check
        self._make_app = make_app

    async def run(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> list[CrashPoint]:
        """Run it once in peace, then with a crash at each commit. Raises `CrashFoundError` where that ends otherwise.

        Returns the places at which it was killed.
        """
        expected, _ = await self._one_run(None, workflow, args, kwargs)
        points: list[CrashPoint] = []
        for commit in range(1, COMMITS_MAX + 1):
            for when in BOTH:
                point = await self._crashed(commit, when, expected, workflow, args, kwargs)
                if point is None:
                    return points
                points.append(point)
        raise AssertionError(f"{workflow.name} makes more than {COMMITS_MAX} commits")

    async def _crashed(
        self,
        commit: int,
        when: When,
        expected: str,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> CrashPoint | None:
        """None: it came to its end before."""
        found, what = await self._one_run((commit, when), workflow, args, kwargs)
        if what is None:
            return None
        point = CrashPoint(commit, when, what)
        if found != expected:
            raise CrashFoundError(
                f"{workflow.name}: {point}: without a crash it is {expected}, here it is {found}",
                point=point,
                expected=expected,
                found=found,
            )
        return point

    async def _one_run(
        self,
        crash: tuple[int, When] | None,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[str, str | None]:
        """What it came to in words, and what was written where it was killed."""
        _rewind_fakes()
        async with self._make_app() as app:
            if self._prepare is not None:
                await self._prepare(app)
            if crash is not None:
                app.crash_at(*crash)
            handle = await app.start(workflow, *args, **kwargs)
            if self._meanwhile is not None:
                await self._meanwhile(app, handle)
            ending = await _ending(handle)
            what = app.last_words if app.crashes else None
            if self._check is not None:
                try:
                    await self._check(app)
                except AssertionError as error:
                    where = "without a crash" if what is None or crash is None else str(CrashPoint(*crash, what))
                    error.add_note(f"{workflow.name}: {where}")
                    raise
            return ending, what


async def crash_anywhere(workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> list[CrashPoint]:
    """Run a workflow once in peace, then once with a crash at each of its commits, before it and after it.

    Raises `CrashFoundError` where it ends otherwise than in peace. For one that waits for events see `CrashTest`.
    """
    return await CrashTest().run(workflow, *args, **kwargs)


async def _ending(handle: WorkflowHandle[Any]) -> str:
    try:
        return f"completed with {await handle.result()!r}"
    except Exception as error:
        return f"{await handle.status()} with {type(error).__name__}: {error}".replace(handle.id, "<id>")


def _rewind_fakes() -> None:
    """Each run finds the world as the first one did."""
    for activity in activities:
        if isinstance(activity.function, Calls):
            activity.function.rewind()
