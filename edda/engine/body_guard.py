"""What a workflow body may not do, and the error that says so with the user's line.

A body is replayed after a crash, so nothing may enter it but recorded results. Sockets, threads, subprocesses, signals
and futures of other loops would; each is refused where it is asked for, with the cure (an activity, or `ctx.run`).

Must not know: the loop's queue, history, storage, activities.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.events import _get_running_loop  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable, Coroutine, Iterator
from itertools import chain
from types import FrameType
from typing import Any, NoReturn

from edda.engine.user_line import user_line
from edda.exceptions import ForbiddenInBody

_BODY_LOOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "body_loop.py")


def forbidden(what: str) -> ForbiddenInBody:
    """The error for what is being done right now: it names the innermost line of the user on the stack."""
    return ForbiddenInBody(what=what, where=_where(chain(_running_frames(), _waiting_frames())))


def forbidden_await(what: str, coroutine: object) -> ForbiddenInBody:
    """The error for what a suspended coroutine is waiting for."""
    innermost_first = list(suspended_frames(coroutine))[::-1]
    return ForbiddenInBody(what=what, where=_where(iter(innermost_first)))


def suspended_frames(awaitable: object) -> Iterator[FrameType]:
    """The frames of a suspended coroutine and of what it awaits, outermost first."""
    while awaitable is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaitable, kind + "_frame", None)
            if isinstance(frame, FrameType):
                yield frame
                break
        else:
            kind = "cr"
        awaitable = getattr(awaitable, "gi_yieldfrom" if kind == "gi" else kind + "_await", None)


def _running_frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # the documented way to a frame
    while frame is not None:
        if frame.f_code.co_name == "_run_ready" and frame.f_code.co_filename == _BODY_LOOP:
            return  # what is further out is not the body's
        yield frame
        frame = frame.f_back


def _waiting_frames() -> Iterator[FrameType]:
    """Where the workflow function itself stands, if it waits for the task that runs: a library's own, say."""
    root = getattr(_get_running_loop(), "root", None)
    return reversed(list(suspended_frames(getattr(root, "coroutine", None))))


def _where(innermost_first: Iterator[FrameType]) -> str:
    return user_line((frame.f_code.co_filename, frame.f_lineno) for frame in innermost_first)


class Guard:
    """The coroutine as its task sees it: a future of another loop is reported as `ForbiddenInBody` at its `await`.

    asyncio reports it by throwing a RuntimeError into the coroutine, so `throw` is the one place where it can be put
    right. `send`, the hot one, is the coroutine's own bound method: a Python function there would cost 0.5 us a step.
    """

    __slots__ = ("_coroutine", "close", "send")
    send: Callable[[Any], Any]
    close: Callable[[], None]

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.send = coroutine.send
        self.close = coroutine.close

    def throw(self, error: Any, *rest: Any) -> Any:
        if type(error) is RuntimeError and "attached to a different loop" in str(error):
            error = forbidden_await("Waiting for a future or task of another event loop", self._coroutine)
        return self._coroutine.throw(error, *rest)

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:  # cr_frame, cr_await, __qualname__: asyncio shows them
        return getattr(self._coroutine, name)


def _refused(method: str, what: str) -> Any:
    def refuse(self: object, *arguments: Any, **options: Any) -> NoReturn:
        for argument in arguments:
            if asyncio.iscoroutine(argument):
                argument.close()  # else Python warns that it was never awaited
        raise forbidden(f"{what} (loop.{method})")

    refuse.__name__ = method
    return refuse


class ForbiddenCalls(asyncio.AbstractEventLoop):
    """The part of the loop's interface that reaches out of the body, or takes the loop out of the engine's hands."""

    run_in_executor: Any = _refused("run_in_executor", "Running code in a thread")
    set_default_executor: Any = _refused("set_default_executor", "Setting a thread pool")
    shutdown_default_executor: Any = _refused("shutdown_default_executor", "Shutting down a thread pool")

    getaddrinfo: Any = _refused("getaddrinfo", "Resolving a name")
    getnameinfo: Any = _refused("getnameinfo", "Resolving an address")
    create_connection: Any = _refused("create_connection", "Opening a connection")
    create_server: Any = _refused("create_server", "Opening a server")
    create_unix_connection: Any = _refused("create_unix_connection", "Opening a connection")
    create_unix_server: Any = _refused("create_unix_server", "Opening a server")
    connect_accepted_socket: Any = _refused("connect_accepted_socket", "Using a socket")
    create_datagram_endpoint: Any = _refused("create_datagram_endpoint", "Opening a socket")
    start_tls: Any = _refused("start_tls", "Using a connection")
    sendfile: Any = _refused("sendfile", "Using a connection")
    sock_recv: Any = _refused("sock_recv", "Reading from a socket")
    sock_recv_into: Any = _refused("sock_recv_into", "Reading from a socket")
    sock_recvfrom: Any = _refused("sock_recvfrom", "Reading from a socket")
    sock_recvfrom_into: Any = _refused("sock_recvfrom_into", "Reading from a socket")
    sock_sendall: Any = _refused("sock_sendall", "Writing to a socket")
    sock_sendto: Any = _refused("sock_sendto", "Writing to a socket")
    sock_sendfile: Any = _refused("sock_sendfile", "Writing to a socket")
    sock_connect: Any = _refused("sock_connect", "Connecting a socket")
    sock_accept: Any = _refused("sock_accept", "Accepting from a socket")
    add_reader: Any = _refused("add_reader", "Watching a file descriptor")
    remove_reader: Any = _refused("remove_reader", "Watching a file descriptor")
    add_writer: Any = _refused("add_writer", "Watching a file descriptor")
    remove_writer: Any = _refused("remove_writer", "Watching a file descriptor")

    connect_read_pipe: Any = _refused("connect_read_pipe", "Using a pipe")
    connect_write_pipe: Any = _refused("connect_write_pipe", "Using a pipe")
    subprocess_shell: Any = _refused("subprocess_shell", "Starting a process")
    subprocess_exec: Any = _refused("subprocess_exec", "Starting a process")
    add_signal_handler: Any = _refused("add_signal_handler", "Handling a signal")
    remove_signal_handler: Any = _refused("remove_signal_handler", "Handling a signal")

    run_forever: Any = _refused("run_forever", "Running the event loop")
    run_until_complete: Any = _refused("run_until_complete", "Running the event loop")
    stop: Any = _refused("stop", "Stopping the event loop")
    close: Any = _refused("close", "Closing the event loop")
    shutdown_asyncgens: Any = _refused("shutdown_asyncgens", "Shutting down the event loop")
    set_task_factory: Any = _refused("set_task_factory", "Setting a task factory")
    set_exception_handler: Any = _refused("set_exception_handler", "Setting an exception handler")
    set_debug: Any = _refused("set_debug", "Changing the event loop")
