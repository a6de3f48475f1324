"""What a test program may use: it begins with `from tests.acceptance.program import *` and ends with `run(main())`.

`processes.py` starts it. Files in its directory outlive its crashes; stdout speaks to the test.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

if os.environ.get("EDDA_TEST_ENGINE") == "stub":
    from tests.acceptance import stub_engine

    stub_engine.install()

from edda import (
    EddaApp,
    RetryExhaustedError,
    RetryPolicy,
    TerminalError,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    register_compensation,
    send_event,
    send_event_transactional,
    wait_event,
    wait_timer,
    workflow,
)

DB_URL = os.environ["EDDA_TEST_DB_URL"]
ROUND = int(os.environ["EDDA_TEST_ROUND"])
"""1 in the first run of this program, 2 in the next."""
ROLE = os.environ["EDDA_TEST_ROLE"]

_DIRECTORY = Path(os.environ["EDDA_TEST_DIRECTORY"])


def say(what: object) -> None:
    """Tell the test, which may wait for it."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def note(what: object) -> None:
    """Write down an effect on the world outside: it outlives every crash, and a repetition shows."""
    descriptor = os.open(_DIRECTORY / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{what}\n".encode())
    os.close(descriptor)


def first_time(point: str) -> bool:
    """Whether no run of this program was here before."""
    try:
        os.close(os.open(_DIRECTORY / f"passed-{point}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def crash_once(point: str) -> None:
    """The process dies here, the first time that any run comes here."""
    if first_time(point):
        crash()


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def allowed(point: str) -> None:
    """Block until the test calls `program.allow(point)`."""
    while not (_DIRECTORY / f"allowed-{point}").exists():  # noqa: ASYNC110 - another process makes it true
        await asyncio.sleep(0.02)


async def forever() -> None:
    await asyncio.Event().wait()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


__all__ = [
    "DB_URL",
    "ROLE",
    "ROUND",
    "EddaApp",
    "RetryExhaustedError",
    "RetryPolicy",
    "TerminalError",
    "WorkflowContext",
    "activity",
    "allowed",
    "asyncio",
    "compensation",
    "crash",
    "crash_once",
    "first_time",
    "forever",
    "note",
    "on_failure",
    "register_compensation",
    "run",
    "say",
    "send_event",
    "send_event_transactional",
    "sys",
    "wait_event",
    "wait_timer",
    "workflow",
]
