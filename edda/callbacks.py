"""Callbacks: one-shot tokens that a workflow hands to a person or a system, and waits for the answer.

A token names its instance, so an answer that comes when nobody waits any more is refused; what else is in it is secret,
so only who was given it can answer. The answer is an event whose id is made from the token: the first one counts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from typing import Any, Final

from edda.context import WorkflowContext, run_of
from edda.core.event import TARGET, CloudEvent
from edda.core.routing import Criteria

CALLBACK_TYPE: Final = "edda.callback"
CALLBACK_SOURCE: Final = "/edda/callback"
SECRET_BYTES: Final = 24


class Callback:
    """A question to the outside, made by `await ctx.callback()`. Give `token` away; `await callback.wait()`."""

    def __init__(self, ctx: WorkflowContext, token: str) -> None:
        self._ctx = ctx
        self.token = token
        """Whoever has it may answer, once: `app.complete(token, data)`, or `POST /callback/{token}`."""

    def __repr__(self) -> str:
        return f"<Callback of {self._ctx.instance_id}>"

    async def wait(self, *, timeout_seconds: float | None = None, model: Any = None) -> Any:
        """The answer, holding no worker. Raises EventTimeoutError after `timeout_seconds`.

        `model` is what the answer is to be: a pydantic model or any annotation. The first answer counts, so one that
        does not fit raises pydantic's ValidationError here: ask again with another callback, or fail.
        """
        # Nobody reads the token in a list of what is waited for: whoever has it may answer.
        criteria = Criteria.of(CALLBACK_TYPE, subject=self.token)._replace(where="")
        event = await run_of(self._ctx).event(criteria, model=None, timeout_seconds=timeout_seconds, call_id=None)
        return event.data if model is None else _fitted(event.data, model)


async def make_callback(ctx: WorkflowContext, name: str) -> Callback:
    """A recorded step: the token is the same at every replay."""
    return Callback(ctx, await ctx.run(name, _new_token, ctx.instance_id))


async def _new_token(instance_id: str) -> str:
    owner = base64.urlsafe_b64encode(instance_id.encode()).decode().rstrip("=")
    # Of digits and letters: a command line takes what begins with a hyphen for an option.
    return f"{secrets.token_hex(SECRET_BYTES)}.{owner}"


def _fitted(data: Any, model: Any) -> Any:
    """Not left to the wait: it would set the answer aside and wait on, for another one that is never taken."""
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(model)
    return adapter.validate_python(data) if isinstance(data, bytes) else adapter.validate_json(json.dumps(data))


def answer_to(token: str, *, json: str | None, blob: bytes | None, content_type: str | None) -> CloudEvent:
    """The answer, as an event. Raises ValueError for what is no token."""
    return CloudEvent(
        # As long for every token: that of an instance with a long id has more characters than an id may have.
        id=hashlib.sha256(token.encode()).hexdigest(),
        source=CALLBACK_SOURCE,
        type=CALLBACK_TYPE,
        subject=token,
        datacontenttype=content_type,
        json=json,
        blob=blob,
        extensions={TARGET: instance_of(token)},
    )


def instance_of(token: str) -> str:
    """The instance that waits for an answer. Raises ValueError for what is no token."""
    _, dot, owner = token.partition(".")
    try:
        if not dot:
            raise ValueError("no dot")
        found = base64.b64decode(owner + "=" * (-len(owner) % 4), altchars=b"-_", validate=True).decode()
        if "\0" in found:  # no instance has it, and not every database can be asked
            raise ValueError("a NUL")
        return found
    except (binascii.Error, ValueError) as error:
        raise ValueError("this is not the token of a callback") from error
