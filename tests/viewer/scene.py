"""A shop that works, its database, and a viewer of it on loopback: everything in one thread with a loop of its own."""

# ruff: noqa: E501 - rows of tables are read best in one line

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import uvicorn

from edda import EddaApp
from edda.viewer import create_app
from tests import databases
from tests.viewer import shop, statements

T = TypeVar("T")

TOKEN = "a-token-for-the-tests-0123456789"


class Scene:
    """`run` does something in the thread of the shop."""

    def __init__(self, *, allow_actions: bool = True) -> None:
        self._allow_actions = allow_actions
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scene")
        self._stack = contextlib.AsyncExitStack()
        self._together: list[tuple[str, dict[str, Any]]] | None = None
        self.app: EddaApp
        self.url = ""
        self.port = 0

    @classmethod
    @contextmanager
    def begun(cls, *, allow_actions: bool = True, filled: bool = True, kind: str = "sqlite") -> Iterator[Self]:
        with databases.fresh_database(kind) as url:
            scene = cls(allow_actions=allow_actions)
            scene._thread.start()
            try:
                scene.run(scene._begin(url, filled))
                yield scene
            finally:
                scene.run(scene._stack.aclose())
                scene._loop.call_soon_threadsafe(scene._loop.stop)
                scene._thread.join()
                scene._loop.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address_with_token(self) -> str:
        return f"{self.address}/?token={TOKEN}"

    def run(self, doing: Coroutine[Any, Any, T], *, seconds: float = 60.0) -> T:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(seconds)

    def execute(self, statement: str, **values: Any) -> None:
        """SQL, past everything: to plant what no workflow would write."""
        if self._together is not None:
            self._together.append((statement, values))
        else:
            self.run(self._execute(statement, values))

    @contextmanager
    def in_one_transaction(self) -> Iterator[None]:
        """What is executed in here is executed at its end."""
        self._together = []
        yield
        together, self._together = self._together, None
        self.run(statements.execute(self.url, together))

    async def _execute(self, statement: str, values: dict[str, Any]) -> None:
        await statements.execute(self.url, [(statement, values)])

    def plant_instances(self, *, count: int, workflow: str) -> None:
        """That have ended, each a second after the one before."""
        values = ", ".join(
            f"('{workflow}-{n:05d}', '{workflow}', 'completed', '', 1, 0, '', 0, '{{}}', '', 0, '', '3.11', "
            f"{n * 1_000_000}, {n * 1_000_000}, {n * 1_000_000}, 0, 0)"
            for n in range(1, count + 1)
        )
        self.execute(
            "insert into edda_instance (id, workflow, status, reason, claim, wakes, cancelled_by, crashes, input, args_hash, "
            "detached, source_hash, python, created_at_us, updated_at_us, ended_at_us, seen_wakes, claim_key) values "
            + values
        )

    async def _begin(self, url: str, filled: bool) -> None:
        self.url = url
        shop.FLAKY.clear()
        self.app = await self._stack.enter_async_context(shop.app_on(url))
        self._stack.callback(shop.OPEN_GATES.update, {"gate-1"})
        if filled:
            await shop.fill(self.app)
            await self._plant()
        self.port = await self._serve(self._allow_actions, self.app)

    async def _serve(self, allow_actions: bool, code: EddaApp | None = None) -> int:
        """The port of another viewer of the same database."""
        app = create_app(self.url, token=TOKEN, allow_actions=allow_actions, app=code)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1, ws="none")
        )
        serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))

        async def stop() -> None:
            server.should_exit = True
            await serving

        self._stack.push_async_callback(stop)
        return int(listener.getsockname()[1])

    def serve_read_only(self) -> str:
        """The address of a viewer that only looks."""
        return f"http://127.0.0.1:{self.run(self._serve(False))}"

    def serve_without_code(self) -> str:
        """The address of a viewer that may act, and knows the database only."""
        return f"http://127.0.0.1:{self.run(self._serve(True))}"

    async def _plant(self) -> None:
        """What takes days, or a broken receiver: written as it would have been."""
        now_us = time.time_ns() // 1000
        for number, (status, reason) in enumerate(
            (
                ("dead", "410 Gone: this receiver takes no more events of this type"),
                ("dead", "400 Bad Request: order_id is missing"),
            )
        ):
            await self._execute(
                "insert into edda_outbox (instance_id, seq, ordinal, id, type, source, data, content_type, at_us, status, "
                "attempts, due_at_us, reason) values (:instance, 900, :ordinal, :id, 'order.invoiced', '/shop', :data, "
                "'application/json', :at, :status, 7, :due, :reason)",
                {
                    "instance": f"order-000{number + 1}",
                    "ordinal": number,
                    "id": f"0190-dead-{number}",
                    "data": '{"order_id":"ORD-1","total":"50.90","lines":[{"sku":"teapot","quantity":1}]}',
                    "at": now_us - 3_600_000_000,
                    "due": now_us - 120_000_000,
                    "status": status,
                    "reason": reason,
                },
            )
        await self._plant_weekend(now_us)

    async def _plant_weekend(self, now_us: int) -> None:
        """Seconds of work around three days of waiting."""
        begin = now_us - 4 * 86_400_000_000
        day = 86_400_000_000
        await self._execute(
            "insert into edda_instance (id, workflow, status, reason, claim, wakes, cancelled_by, crashes, input, args_hash, "
            "output, detached, source_hash, python, created_at_us, updated_at_us, ended_at_us, seen_wakes, claim_key) values "
            "('weekend-1', 'shop.approval', 'completed', '', 3, 2, '', 0, :input, '', '\"EXP-9: granted\"', 0, '', '3.11', "
            ":begin, :end, :end, 2, 0)",
            {"begin": begin, "end": begin + 3 * day + 9_000_000, "input": '{"args":["EXP-9",990],"kwargs":{}}'},
        )
        rows = [
            (100_000, "WorkflowStarted", "", "shop.approval", None, None),
            (1_400_000, "ActivityAttemptFailed", "write_to_the_boss:1", "write_to_the_boss",
             '{"error_type":"ConnectionError","error_message":"mail server said 451","stack_trace":""}',
             '{"error":{},"duration_us":1200000,"delay_us":1000000}'),
            (3_600_000, "ActivityCompleted", "write_to_the_boss:1", "write_to_the_boss", "null", '{"duration_us":1150000}'),
            (3 * day + 4_000_000, "EventReceived", "expense.decided:1", "expense.decided", '{"granted":true,"by":"grace"}',
             '{"id":"e-1","source":"/boss"}'),
            (3 * day + 6_500_000, "ActivityCompleted", "pay_out:1", "pay_out", '"bank-9"', '{"duration_us":2300000}'),
            (3 * day + 8_800_000, "ActivityCompleted", "send_mail:1", "send_mail", "null", '{"duration_us":2200000}'),
            (3 * day + 9_000_000, "WorkflowCompleted", "", "shop.approval", '"EXP-9: granted"', None),
        ]  # fmt: skip
        for seq, (after, kind, call, name, output, meta) in enumerate(rows, 1):
            await self._execute(
                "insert into edda_history (instance_id, seq, claim, at_us, kind, call_id, name, input, output, meta) values "
                "('weekend-1', :seq, 1, :at, :kind, :call, :name, :input, :output, :meta)",
                {"seq": seq, "at": begin + after, "kind": kind, "call": call, "name": name, "output": output, "meta": meta,
                 "input": '{"args":["Please look at EXP-9"],"kwargs":{}}' if kind == "ActivityCompleted" else None},
            )  # fmt: skip
