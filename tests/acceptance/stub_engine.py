"""An engine that keeps no promise: it calls the functions and records nothing. Tests that pass on it prove nothing.

`python -m pytest -p tests.acceptance.stub_engine …` runs any tests on it; `stub_count.py` counts them. It is as
charming as one can be without a database: it returns results, knows what runs, starts children and waits for timers.
"""

import asyncio
import contextlib
import os
import sys
import types
import uuid
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from typing import Any


def install() -> None:
    """Put the stub in the place of `edda.app`, in this process and those that it starts."""
    os.environ["EDDA_TEST_ENGINE"] = "stub"
    module = types.ModuleType("edda.app")
    module.EddaApp = StubApp  # type: ignore[attr-defined]
    sys.modules["edda.app"] = module
    if "edda" in sys.modules:
        sys.modules["edda"].EddaApp = StubApp  # type: ignore[attr-defined]


def pytest_addoption() -> None:
    """The first hook that a plugin of pytest hears: no conftest has been imported yet."""
    install()


class StubApp:
    """Looks like an `EddaApp`."""

    def __init__(self, service_name: str | None = None, db_url: str = "sqlite:///edda.db", **options: Any) -> None:
        from edda.workflow import constructed_apps

        self.service_name = service_name
        self.db_url = db_url
        self.options = options
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        constructed_apps.add(self)  # type: ignore[arg-type]

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def __aenter__(self) -> "StubApp":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def start(self, workflow: Any, *args: Any, **kwargs: Any) -> Any:
        return await workflow.options().on(self).start(*args, **kwargs)

    def handle(self, instance_id: str) -> Any:
        from edda.workflow import WorkflowHandle

        return WorkflowHandle(instance_id, self)  # type: ignore[arg-type]

    async def start_instance(self, workflow: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> Any:
        instance_id = options.id or f"{workflow.name}-{uuid.uuid4().hex}"
        body = _in_context(StubRun(self, workflow.name, instance_id), workflow.function, args, kwargs)
        self.tasks[instance_id] = asyncio.create_task(body)
        return self.handle(instance_id)

    async def result_of(self, instance_id: str, *, timeout: float | None) -> Any:  # noqa: ASYNC109
        return await asyncio.wait_for(asyncio.shield(self.tasks[instance_id]), timeout)

    async def status_of(self, instance_id: str) -> str:
        task = self.tasks[instance_id]
        if not task.done():
            return "running"
        if task.cancelled():
            return "cancelled"
        return "failed" if task.exception() else "completed"

    async def reason_of(self, instance_id: str) -> str:
        return ""

    async def history_of(self, instance_id: str) -> list[Any]:
        return []

    async def cancel(self, instance_id: str) -> None:
        self.tasks[instance_id].cancel()

    async def retry(self, instance_id: str) -> None: ...


async def _in_context(run: "StubRun", function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from edda.context import WorkflowContext, current_run
    from edda.workflow import current_app

    current_run.set(run)
    current_app.set(run.app)  # type: ignore[arg-type]
    return await function(WorkflowContext(run), *args, **kwargs)


class StubRun:
    """Does what the code asks for, at once, and forgets it."""

    worker_id = "stub"
    replaying = False
    in_transaction = False

    def __init__(self, app: StubApp, workflow_name: str, instance_id: str) -> None:
        self.app = app
        self.hooks = app.options.get("hooks")
        self.workflow_name = workflow_name
        self.instance_id = instance_id
        self.executed: set[str] = set()

    @property
    def info(self) -> Any:
        from edda.context import ActivityInfo

        return ActivityInfo(id="stub:1", name="stub", attempt=1, idempotency_key="stub")

    @property
    def session(self) -> Any:
        raise RuntimeError("the stub has no database")

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        yield

    def now_us(self) -> int:
        return int(datetime.now(UTC).timestamp() * 1_000_000)

    def seed(self, purpose: str) -> bytes:
        return uuid.uuid4().bytes

    def patched(self, patch_id: str) -> bool:
        return True

    def activity(
        self, activity: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, call_id: str | None
    ) -> Coroutine[Any, Any, Any]:
        from edda.context import WorkflowContext

        context = (WorkflowContext(self),) if activity.takes_context else ()

        async def call() -> Any:
            if activity.is_async:
                return await activity.function(*context, *args, **kwargs)
            return await asyncio.to_thread(activity.function, *context, *args, **kwargs)

        return call()

    async def timer(self, prefix: str, *, due_us: int, timer_id: str | None) -> None:
        await asyncio.sleep((due_us - self.now_us()) / 1_000_000)

    async def child(self, workflow: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> Any:
        return await self.app.start_instance(workflow, args, kwargs, options)

    async def child_result(self, instance_id: str) -> Any:
        return await self.app.result_of(instance_id, timeout=None)

    async def send(self, event_type: str, source: str, data: object, *, content_type: str | None) -> str:
        return uuid.uuid4().hex

    async def owe(
        self, compensation: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, call_id: str | None
    ) -> None: ...
