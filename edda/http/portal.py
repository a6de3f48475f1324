"""A way in for synchronous code: the app's event loop in a thread of this process.

The thread begins with the first call and not before, so a server that forks (gunicorn, uWSGI) may import and even build
the portal first; each child then has a loop and a worker of its own. It is a daemon: a forgotten `close()` never hangs
the exit, and ends like a crash, which others take over from.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from edda.core.event import CloudEvent, Receipt
from edda.exceptions import ShuttingDownError, WrongLoopError
from edda.http.asgi import Receive, Scope, Send
from edda.http.door import Door
from edda.http.wsgi import Beside, Environ, StartResponse, Wsgi, WsgiApplication
from edda.workflow import BoundWorkflow, Workflow, WorkflowHandle

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class App(Door, Protocol):
    """What the portal needs of an `EddaApp`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def start(
        self, workflow: Workflow[P, R] | BoundWorkflow[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]: ...


class Portal:
    """`portal = Portal(app)`: durable workflows from Flask, Django, or a plain script.

    It is a WSGI application, too, with the routes of the ASGI one: `portal.beside(django_application, "/workflows")`,
    or, under Flask, `DispatcherMiddleware(flask.wsgi_app, {"/workflows": portal})`.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._wsgi = Wsgi(app, submit=self.submit)
        self._lock = threading.Lock()
        self._home: _Home | None = None
        _when_forked(self)

    def __repr__(self) -> str:
        return f"Portal({self._app!r})"

    # -- from synchronous code ---------------------------------------------------------------------------------------

    def call(self, coroutine: Coroutine[Any, Any, T], *, timeout_seconds: float | None = None) -> T:
        """Run a coroutine on the app's loop and wait for what it returns: `portal.call(handle.result())`.

        Raises `TimeoutError` after so many seconds; the coroutine is cancelled then.
        """
        future = self.submit(coroutine)
        try:
            return future.result(timeout_seconds)
        except CancelledError:
            raise ShuttingDownError(f"{self!r} was closed before the call had ended") from None
        except BaseException:
            future.cancel()
            raise

    def start(
        self, workflow: Workflow[P, R] | BoundWorkflow[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandle[R]:
        """Start an instance. What its handle can do, `call` does: `portal.call(handle.result())`."""
        return self.call(self._app.start(workflow, *args, **kwargs))

    def cancel(self, instance_id: str) -> None:
        self.call(self._app.cancel(instance_id, by="user"))

    def send(self, event: CloudEvent) -> Receipt:
        """Hand in an event; it is stored when this returns, unless the receipt says otherwise."""
        return self.call(self._accept(event))

    async def _accept(self, event: CloudEvent) -> Receipt:
        (receipt,) = await self._app.accept([event])
        return receipt

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a coroutine on the app's loop, and do not wait."""
        try:
            self._must_be_synchronous()
            with self._lock:  # what is begun here comes before the end in `close`
                self._home = self._home or _Home()
                return asyncio.run_coroutine_threadsafe(coroutine, self._home.loop)
        except BaseException:
            coroutine.close()
            raise

    # -- WSGI --------------------------------------------------------------------------------------------------------

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        return self._wsgi(environ, start_response)

    def beside(self, application: WsgiApplication, prefix: str) -> Beside:
        """A WSGI application: this one below `prefix`, the other one everywhere else."""
        return Beside(self, application, prefix)

    # -- life --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Shut the app down, and end the thread. Idempotent; a later call begins anew."""
        self._must_be_synchronous()
        with self._lock:
            home, self._home = self._home, None
        if home is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(self._app.shutdown(), home.loop).result()
        finally:
            home.end()

    def __enter__(self) -> Self:
        self.call(self._app.initialize())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _must_be_synchronous(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise WrongLoopError(
            f"{self!r} was called from code that runs in an event loop, and would block it. There, use the app itself: "
            "`await app.start(...)`, `await handle.result()`."
        )

    def forked(self) -> None:
        """In the child there is no such thread. What the app itself says of a fork, it says when it is used."""
        self._lock = threading.Lock()
        self._home = None


class _Home:
    """A thread with an event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="edda-portal", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Whatever is still under way at the end is cancelled, so that nobody waits for it for ever."""
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._over.wait()

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


def _when_forked(portal: Portal) -> None:
    """The interpreter keeps such hooks for ever; it need not keep the portal."""
    portal_or_none = weakref.ref(portal)

    def in_child() -> None:
        if (portal := portal_or_none()) is not None:
            portal.forked()

    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=in_child)
