"""What SQLite has beside its database, and who is in the way: the lock of the worker, and looks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edda.storage.sql import open_store
from edda.storage.sql.sqlite_presence import FileLock
from tests.storage.support import W1, World

fcntl = pytest.importorskip("fcntl")  # Windows has neither forks nor locks to share


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edda.db"


@contextlib.contextmanager
def locked(path: Path, kind: int) -> Iterator[None]:
    """Somebody has the lock file: to work (exclusive), or for the moment of a look (shared)."""
    with path.with_name("edda.db.edda-lock").open("w") as file:
        fcntl.flock(file, kind)
        yield


# -- who looks --------------------------------------------------------------------------------------------------------


def test_two_who_look_at_the_same_moment_see_the_same(path: Path) -> None:
    lock = FileLock(path)
    with locked(path, fcntl.LOCK_SH):
        assert lock.is_free()
        assert not lock.is_held_elsewhere()
    with locked(path, fcntl.LOCK_EX):
        assert not lock.is_free()
        assert lock.is_held_elsewhere()


def test_who_looks_makes_nothing_and_claims_to_know_nothing(path: Path) -> None:
    lock = FileLock(path)
    assert not lock.is_free()
    assert not lock.is_held_elsewhere()
    assert list(path.parent.iterdir()) == []


async def test_a_worker_that_a_look_was_in_the_way_of_tries_again(path: Path) -> None:
    world = World(open_store(f"sqlite:///{path}"))
    await world.store.open()
    with locked(path, fcntl.LOCK_SH):
        joining = asyncio.ensure_future(world.worker(W1))
        await asyncio.wait({joining}, timeout=0.1)
        assert not joining.done()
    await asyncio.wait_for(joining, timeout=5)
    await world.close()
    await world.store.close()
