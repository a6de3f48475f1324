"""The agent behind HTTP: give it a task, look how far it is. Below `/v1` is the scripted model."""

from __future__ import annotations

from fastapi import FastAPI

from examples.agent.agent import agent, edda
from examples.agent.model import model

api = FastAPI(lifespan=edda.lifespan)
api.mount("/v1", model)


@api.put("/tasks/{name}", status_code=202)
async def give(name: str, task: str) -> dict[str, str]:
    return {"id": await edda.start(agent.options(id=name), task)}


@api.get("/tasks/{name}")
async def look(name: str) -> dict[str, str]:
    handle = edda.handle(name)
    status = await handle.status()
    return {"status": status, "result": await handle.result() if status == "completed" else await handle.reason()}


api.mount("/", edda)  # whatever is left: answers to callbacks, events, cancels
