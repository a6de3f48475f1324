"""An expense has to be approved by a human being: somebody gets a link, and whoever has it may answer, once."""

from __future__ import annotations

import os

from fastapi import FastAPI
from pydantic import BaseModel

from edda import EddaApp, EventTimeoutError, WorkflowContext, activity, workflow

PUBLIC_URL = os.environ.get("PUBLIC_URL", "http://localhost:8000")
ANSWER_WITHIN_SECONDS = float(os.environ.get("ANSWER_WITHIN_SECONDS", "604800"))


class Decision(BaseModel):
    approved: bool
    comment: str = ""


@workflow
async def expense(ctx: WorkflowContext, who: str, cents: int) -> str:
    callback = await ctx.callback("approval")
    await write_to_the_boss(ctx, f"{who} spent {cents} cents: {PUBLIC_URL}/workflows/callback/{callback.token}")
    try:
        decision = await callback.wait(model=Decision, timeout_seconds=ANSWER_WITHIN_SECONDS)
    except EventTimeoutError:
        return f"{who} gets nothing: nobody answered"
    if not decision.approved:
        return f"{who} gets nothing: {decision.comment or 'no reason given'}"
    return await pay_out(ctx, who, cents)


@activity
async def write_to_the_boss(ctx: WorkflowContext, text: str) -> None:
    print(text, flush=True)  # send an e-mail here


@activity
async def pay_out(ctx: WorkflowContext, who: str, cents: int) -> str:
    return f"{who} gets {cents} cents"


# -- the web -----------------------------------------------------------------------------------------------------------

edda = EddaApp(db_url=os.environ.get("DATABASE_URL", "sqlite:///expenses.db"))
api = FastAPI(lifespan=edda.lifespan)
api.mount("/workflows", edda)  # takes the answers


@api.put("/expenses/{number}", status_code=202)
async def hand_in(number: int, who: str, cents: int) -> dict[str, str]:
    return {"id": await edda.start(expense.options(id=f"expense-{number}"), who, cents)}


@api.get("/expenses/{number}")
async def look(number: int) -> dict[str, str]:
    handle = edda.handle(f"expense-{number}")
    status = await handle.status()
    return {"status": status, "result": await handle.result() if status == "completed" else await handle.reason()}
