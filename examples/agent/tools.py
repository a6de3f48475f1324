"""What the agent can do: activities, and what the model is told of them."""

from __future__ import annotations

from typing import Any

from edda import WorkflowContext, activity


@activity
async def look_up_order(ctx: WorkflowContext, order_id: str) -> str:
    print(f"tool: look_up_order {order_id}", flush=True)
    return f"Order {order_id}: one lamp, 4900 cents, arrived broken."


@activity
async def refund(ctx: WorkflowContext, order_id: str, cents: int) -> str:
    print(f"tool: refund {order_id} {cents}", flush=True)
    return f"Refunded {cents} cents, key {ctx.activity.idempotency_key[:8]}."  # the bank gets the whole key


def described(name: str, what: str, **parameters: str) -> dict[str, Any]:
    properties = {parameter: {"type": kind} for parameter, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": what, "parameters": schema}}


TOOLS = [
    described("look_up_order", "What is known of an order", order_id="string"),
    described("refund", "Give the money back", order_id="string", cents="integer"),
]
