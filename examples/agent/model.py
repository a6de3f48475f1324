"""A model with a script, behind the API of OpenAI (`POST /chat/completions`), so that the example needs no key.

It looks the order up, asks for a refund, and tells what came of it. OPENAI_BASE_URL and OPENAI_API_KEY name a real one.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI

model = FastAPI()

Message = dict[str, Any]


@model.post("/chat/completions")
async def complete(request: dict[str, Any]) -> dict[str, Any]:
    answers = [message["content"] for message in request["messages"] if message["role"] == "tool"]
    print(f"model: turn {len(answers) + 1}", flush=True)
    return {"object": "chat.completion", "choices": [{"index": 0, "message": next_message(answers)}]}


def next_message(answers: list[str]) -> Message:
    if not answers:
        return calling("look_up_order", order_id="7")
    if len(answers) == 1:
        return calling("refund", order_id="7", cents=4900)
    return {"role": "assistant", "content": f"I looked into it. {answers[-1]}"}


def calling(name: str, **arguments: Any) -> Message:
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": f"call_{name}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}
