"""A process that has imported everything and forks workers on demand: a start costs a fork, not a second of imports.

So there may be many kills on a small machine. It speaks JSON lines: `{"slot": 0, "arguments": [...], "errors": "..."}`
comes in, `{"slot": 0, "pid": 17}` goes out, and `{"pid": 17, "code": -9}` when that process has ended. It has no
threads, and edda makes nothing before `initialize()`, so a fork is as good as a new process. It ends with its input.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final

ROOT: Final = Path(__file__).parents[2]
PRELOADED: Final = (
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "asyncpg",
    "asyncmy",
    "edda.storage.sql.session",
    "edda.storage.sql.mysql_database",
    "edda.storage.sql.postgresql_database",
    "edda.storage.sql.sqlite_database",
)


def serve(main: Callable[[list[str]], None]) -> None:
    """Fork for each line; tell of each end."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    buffer = b""
    children: set[int] = set()
    while True:
        ready, _, _ = select.select([0, read], [], [])
        if read in ready:
            os.read(read, 4096)
            _tell_of_ends(children)
        if 0 in ready:
            chunk = os.read(0, 65536)
            if not chunk:  # whoever wanted them is gone
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                return
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                children.add(_spawn(json.loads(line), main, close=(read, write)))


def _spawn(order: dict[str, Any], main: Callable[[list[str]], None], *, close: tuple[int, ...]) -> int:
    pid = os.fork()
    if pid:
        _say(slot=order["slot"], pid=pid)
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in close:
            os.close(descriptor)
        errors = os.open(order["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        main(order["arguments"])
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _tell_of_ends(children: set[int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        children.discard(pid)
        _say(pid=pid, code=os.waitstatus_to_exitcode(status))


def _say(**what: Any) -> None:
    os.write(1, f"{json.dumps(what)}\n".encode())


class Child:
    """A forked process, seen from the test. `pid` and `code` come from the zygote."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self._ended = threading.Event()
        self._pid = 0
        self._code: int | None = None

    @property
    def pid(self) -> int:
        if not self._known.wait(30):
            raise AssertionError("the zygote does not answer")
        return self._pid

    def poll(self) -> int | None:
        return self._code

    def wait(self, timeout: float = 30) -> int | None:
        """The exit code, or None after so many seconds."""
        self._ended.wait(timeout)
        return self._code

    def told(self, *, pid: int | None = None, code: int | None = None) -> None:
        if pid is not None:
            self._pid = pid
            self._known.set()
        if code is not None:
            self._code = code
            self._ended.set()


class Zygote:
    """The test's side."""

    def __init__(self, *, errors: Path, program: str) -> None:
        """`program`: the module whose `run(arguments)` is the whole process."""
        with errors.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.process.zygote", program],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        self._waiting: dict[int, list[Child]] = {}
        self._children: dict[int, Child] = {}
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def spawn(self, slot: int, arguments: list[str], *, errors: Path) -> Child:
        child = Child()
        self._waiting.setdefault(slot, []).append(child)
        assert self._process.stdin is not None
        order = {"slot": slot, "arguments": arguments, "errors": str(errors)}
        self._process.stdin.write(f"{json.dumps(order)}\n".encode())
        self._process.stdin.flush()
        return child

    def _read(self, lines: IO[bytes]) -> None:
        for line in lines:
            told = json.loads(line)
            if "slot" in told:
                child = self._waiting[told["slot"]].pop(0)
                self._children[told["pid"]] = child
                child.told(pid=told["pid"])
            else:
                self._children.pop(told["pid"]).told(code=told["code"])

    def close(self) -> None:
        """End the zygote; its children have to have ended before."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._reader.join(timeout=5)
        assert self._process.stdout is not None
        self._process.stdout.close()


if __name__ == "__main__":
    program = import_module(sys.argv[1])
    for module in PRELOADED:
        import_module(module)
    serve(program.run)
