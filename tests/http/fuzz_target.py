"""A real app to be fuzzed over HTTP: its instances wait for events and for answers, and have something to undo.

    EDDA_FUZZ_URL=sqlite:////tmp/fuzz.db uvicorn tests.http.fuzz_target:target --port 8765

`GET /known` keeps some of them waiting, and names them, so that requests can be about what there is.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from typing import Any, Final

from edda import EddaApp, WorkflowContext, activity, on_failure, wait_event, workflow

WAITING: Final = 8
"""Instances that `/known` finds waiting, if nobody has ended them since."""
TYPE: Final = "fuzz.paid"

waiting: dict[str, str] = {}
"""Instances, and the token of each that waits for an answer; empty for those that wait for an event."""
ended: deque[str] = deque(maxlen=WAITING)


@activity
async def fuzz_release(ctx: WorkflowContext) -> None: ...


@activity
@on_failure(fuzz_release)
async def fuzz_reserve(ctx: WorkflowContext) -> None: ...


@workflow
async def fuzzed_order(ctx: WorkflowContext, asks: bool) -> None:
    await fuzz_reserve(ctx)
    waiting[ctx.instance_id] = ""
    try:
        if not asks:
            await wait_event(ctx, TYPE, match={"instance": ctx.instance_id})
        callback = await ctx.callback()
        waiting[ctx.instance_id] = callback.token
        await callback.wait()
    finally:
        del waiting[ctx.instance_id]
        ended.append(ctx.instance_id)


# What is logged counts as a violation: a warning that the machine stalled the event loop is none.
logging.basicConfig(level=logging.ERROR)
app = EddaApp("fuzz-target", os.environ.get("EDDA_FUZZ_URL", "sqlite:///:memory:"))


async def known() -> dict[str, list[str]]:
    for place in range(WAITING - len(waiting)):
        await app.start(fuzzed_order, place % 2 == 0)
    return {
        "types": [TYPE],
        "waiting": list(waiting),
        "ended": list(ended),
        "tokens": [token for token in waiting.values() if token],
    }


async def target(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http" or scope["path"] != "/known":
        await app(scope, receive, send)
        return
    body = json.dumps(await known()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
