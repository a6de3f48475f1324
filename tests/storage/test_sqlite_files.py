"""What SQLite has beside its database, and who is in the way: the lock of the worker, forks, looks, and bad paths."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edda.exceptions import StorageError
from edda.storage.sql import open_reader, open_store
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


# -- forks ------------------------------------------------------------------------------------------------------------

WITH_A_CHILD = """
import asyncio, os, signal, sys
from edda.storage.sql import open_store

async def main(url):
    store = open_store(url)
    await store.open()
    line = store.lease_line()
    await line.register("other", service="x", lease_us=10**12)
    if os.fork() == 0:
        signal.alarm(60)
        print(os.getpid(), flush=True)
        signal.pause()
    await asyncio.sleep(60)

asyncio.run(main(sys.argv[1]))
"""

FORKS_IN_THE_MIDDLE = """
import os, sys, threading
from pathlib import Path
from edda.storage.sql import sqlite_presence

lock = sqlite_presence.FileLock(Path(sys.argv[1]))
lock.try_take()
lock.give_back()  # now there is a file to look at
begun, forked = threading.Event(), threading.Event()

def slowly(try_lock):
    def wait(handle):
        begun.set()
        forked.wait(0.3)  # for a fork that does not wait for us
        return try_lock(handle)
    return wait

def has_a_copy():
    wanted = os.stat(sys.argv[1] + ".edda-lock").st_ino
    for handle in range(3, 100):
        try:
            if os.fstat(handle).st_ino == wanted:
                return True
        except OSError:
            pass
    return False

sqlite_presence._try_lock = slowly(sqlite_presence._try_lock)
sqlite_presence._try_share = slowly(sqlite_presence._try_share)
thread = threading.Thread(target=getattr(lock, sys.argv[2]))
thread.start()
begun.wait()
if (child := os.fork()) == 0:
    os._exit(has_a_copy())
forked.set()
thread.join()
print("copied" if os.waitpid(child, 0)[1] else "clean", flush=True)
"""


@pytest.mark.process
async def test_a_killed_worker_has_no_lock_even_if_a_child_that_it_forked_lives_on(path: Path) -> None:
    url = f"sqlite:///{path}"
    process = _start(WITH_A_CHILD, url)
    assert process.stdout is not None
    child = int(await asyncio.to_thread(process.stdout.readline))
    looker, world = FileLock(path), World(open_store(url))
    try:
        assert looker.is_held_elsewhere()  # the child took nothing from its parent
        process.kill()
        process.wait()
        assert looker.is_free()
        await world.store.open()
        await asyncio.wait_for(world.worker(W1), timeout=5)
        os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()
        await world.close()
        await world.store.close()


@pytest.mark.process
@pytest.mark.parametrize("what", ["try_take", "is_free"])
def test_a_fork_waits_for_who_is_just_opening_the_lock_file(path: Path, what: str) -> None:
    """The child could not close what nobody had noted yet."""
    program = [sys.executable, "-c", FORKS_IN_THE_MIDDLE, str(path), what]
    assert subprocess.run(program, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout == "clean\n"


def test_a_lock_that_was_given_back_is_free_whoever_has_a_copy_of_it(path: Path) -> None:
    lock = FileLock(path)
    assert lock.try_take()
    wanted = path.with_name("edda.db.edda-lock").stat().st_ino
    (handle,) = [handle for handle in range(3, 1000) if _inode(handle) == wanted]
    copy = os.dup(handle)
    lock.give_back()
    try:
        assert FileLock(path).is_free()
    finally:
        os.close(copy)


def _inode(handle: int) -> int | None:
    try:
        return os.fstat(handle).st_ino
    except OSError:
        return None


def _start(program: str, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True)


# -- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loop", "a%00b", "x" * 300, "loop/x", "there/"])
async def test_a_path_that_cannot_be_opened_is_said_and_nothing_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError, match=r"Cannot open the SQLite database .*: ."):
        await open_store(f"sqlite:///{tmp_path}/{name}").open()


@pytest.mark.parametrize("name", ["loop", "a%00b", "x" * 300, "there"])
async def test_who_looks_hears_the_same_of_a_bad_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError, match=r"SQLite database .*(: .|An app makes it)"):
        await open_reader(f"sqlite:///{tmp_path}/{name}").open()


async def test_the_root_of_all_files_is_no_database() -> None:
    with pytest.raises(StorageError, match="Cannot open the SQLite database /: unable to open"):
        await open_store("sqlite:////").open()


@pytest.mark.parametrize("name", ["edda.db", "x" * 246])
async def test_a_lock_file_that_cannot_be_opened_is_said(tmp_path: Path, name: str) -> None:
    """One that may not be written (a directory stands for it here, as root may write all), or has too long a name."""
    (tmp_path / "edda.db.edda-lock").mkdir()
    store = open_store(f"sqlite:///{tmp_path}/{name}")
    await store.open()
    with pytest.raises(StorageError, match=rf"SQLite database .*/{name}: .*/{name}\.edda-lock") as caught:
        await store.lease_line().connect()
    assert isinstance(caught.value.__cause__, OSError)
    await store.close()


IN_A_CLOSED_DIRECTORY = """
import asyncio, os, sys
from edda.storage.sql import open_reader, open_store

async def main(directory):
    url = f"sqlite:///{directory}/edda.db"
    store, reader = open_store(url), open_reader(url)  # which imports what may not be read later
    await store.open()
    await reader.open()
    await reader.close()
    await store.close()  # who wrote and closes last leaves no log
    os.chmod(directory, 0o555)
    if os.geteuid() == 0:  # who may write everywhere
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    reader = open_reader(url)
    try:
        await reader.open()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    await reader.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.process
def test_who_may_not_write_beside_an_idle_database_is_told_what_sqlite_needs() -> None:
    with tempfile.TemporaryDirectory() as directory:  # `tmp_path` lies where nobody else may go
        program = [sys.executable, "-c", IN_A_CLOSED_DIRECTORY, directory]
        done = subprocess.run(program, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        Path(directory).chmod(0o755)
    assert done.stdout.startswith(f"StorageError: Cannot use the SQLite database {directory}/edda.db: attempt to write")
    assert "SQLite needs to write its -wal and -shm files beside it, so that directory must be writable" in done.stdout
