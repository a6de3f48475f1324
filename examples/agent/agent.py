"""An agent: a model that decides, tools that act, and a human being who is asked before money moves.

The loop below is a workflow, so the conversation is its history. Kill the process anywhere: what the model has answered
is not asked again, no tool that has answered is called again, and a question to a human being stays asked.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2

from edda import EddaApp, EventTimeoutError, RetryPolicy, TerminalError, WorkflowContext, activity, workflow
from examples.agent.tools import TOOLS, look_up_order, refund

MODEL_URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
PUBLIC_URL = os.environ.get("PUBLIC_URL", "http://127.0.0.1:8000")
TURNS_MAX = 20
APPROVE_WITHIN_SECONDS = 86400.0

Message = dict[str, Any]
"""As the API of the model has it."""


@workflow
async def agent(ctx: WorkflowContext, task: str) -> str:
    messages: list[Message] = [{"role": "user", "content": task}]
    for _ in range(TURNS_MAX):
        message = await ask_model(ctx, messages)
        messages.append(message)
        calls: list[Message] = message.get("tool_calls") or []
        if not calls:
            return str(message["content"])
        messages += await asyncio.gather(*(use_tool(ctx, call) for call in calls))
    raise TerminalError(f"no answer after {TURNS_MAX} turns")


@activity(retry_policy=RetryPolicy(max_attempts=10), timeout=120)
async def ask_model(ctx: WorkflowContext, messages: list[Message]) -> Message:
    async with httpx2.AsyncClient(base_url=MODEL_URL, timeout=100, trust_env=False) as client:
        request = {"model": "scripted", "messages": messages, "tools": TOOLS}
        headers = {"authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
        response = await client.post("/chat/completions", json=request, headers=headers)
        response.raise_for_status()
        message: Message = response.json()["choices"][0]["message"]
        return message


async def use_tool(ctx: WorkflowContext, call: Message) -> Message:
    name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
    if name in NEEDS_APPROVAL and not await approved(ctx, f"{name} {arguments}"):
        content = "A human being said no."
    else:
        content = await FUNCTIONS[name](ctx, **arguments)
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


FUNCTIONS: dict[str, Callable[..., Awaitable[str]]] = {"look_up_order": look_up_order, "refund": refund}
NEEDS_APPROVAL = {"refund"}


async def approved(ctx: WorkflowContext, what: str) -> bool:
    callback = await ctx.callback("approval")
    await show(ctx, f"May I {what}? {PUBLIC_URL}/callback/{callback.token}")
    try:
        answer = await callback.wait(timeout_seconds=APPROVE_WITHIN_SECONDS)
    except EventTimeoutError:
        return False
    return bool(answer == {"approved": True})


@activity
async def show(ctx: WorkflowContext, text: str) -> None:
    print(text, flush=True)


edda = EddaApp(db_url=os.environ.get("DATABASE_URL", "sqlite:///agent.db"))
