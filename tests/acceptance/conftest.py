"""Fixtures of the acceptance tests: a real, empty database for each, and apps and processes that do not outlive it."""

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edda import EddaApp, WorkflowHandle
from tests.acceptance.processes import Program
from tests.acceptance.support import Gate, Tables
from tests.databases import available, fresh_database


@pytest.fixture
def db_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database: SQLite, or as `@on_every_database` and its like say."""
    kind = getattr(request, "param", "sqlite")
    if available()[kind] is None:
        pytest.skip(f"there is no {kind} server")
    with fresh_database(kind) as url:
        yield url


class Apps:
    """Opens apps on the test's database; all are shut down at the end."""

    def __init__(self, db_url: str) -> None:
        self.db_url = db_url
        self._opened: list[EddaApp] = []

    async def open(self, **options: Any) -> EddaApp:
        """An initialised app. Its shutdown waits shortly for activities: tests stop in the middle of one."""
        app = EddaApp(**({"db_url": self.db_url, "shutdown_grace_seconds": 0.05} | options))
        self._opened.append(app)
        await app.initialize()
        return app

    async def restart(self, **options: Any) -> EddaApp:
        """Shut the newest app down and open another one: whatever went on continues there, by replay."""
        await self._opened[-1].shutdown()
        return await self.open(**options)

    async def restart_at(self, gate: Gate, handle: WorkflowHandle[Any], **options: Any) -> WorkflowHandle[Any]:
        """Restart while the workflow is at this gate, then let it through."""
        await gate.reached()
        app = await self.restart(**options)
        gate.open()
        return app.handle(str(handle))

    async def close(self) -> None:
        while self._opened:
            await self._opened.pop().shutdown()


@pytest.fixture
async def apps(db_url: str) -> AsyncIterator[Apps]:
    gc.collect()  # `workflow.start()` finds the only app, so those of earlier tests have to be gone
    opened = Apps(db_url)
    yield opened
    await opened.close()


@pytest.fixture
async def tables(db_url: str) -> Tables:
    return Tables(db_url)


@pytest.fixture
def program(db_url: str, tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Makes programs that run in processes of their own, on the test's database."""
    programs: list[Program] = []

    def make(source: str) -> Program:
        programs.append(Program(source, db_url=db_url, directory=tmp_path / str(len(programs))))
        return programs[-1]

    yield make
    for each in programs:
        each.kill_all()
