"""Signed requests, as standardwebhooks.com has them: HMAC-SHA256, version `v1`.

Signed are `webhook-id`, `webhook-timestamp` and the body; nothing else is. So only what stands in the body is believed:
events in structured mode and in batches. The headers of a binary-mode event, and the path of a cancel, could be
exchanged by whoever has seen one valid request. A request that is sent again within the tolerance is the same events
with the same ids, which changes nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final

from edda.exceptions import ForbiddenError
from edda.http.authorizer import Action, Principal, Resource
from edda.http.request import Request

PREFIX: Final = "whsec_"
KEY_BYTES_MIN: Final = 16
SIGNATURES_MAX: Final = 16
"""In one header: a sender that rotates its keys sends two."""


class StandardWebhooks:
    """`StandardWebhooks("whsec_...")`; several secrets let them be changed without a break.

    Args:
        secrets: Base64, with or without `whsec_`.
        name: Of the sender: the principal.
        tolerance_seconds: How far its clock may be from ours, either way.
        binary_mode: Also take events in binary mode, whose attributes are not signed: only where nobody but the sender
            can have seen a request.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        *secrets: str,
        name: str = "webhook",
        tolerance_seconds: float = 300.0,
        binary_mode: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not secrets:
            raise ValueError("StandardWebhooks() needs at least one secret")
        self._keys = tuple(_key_of(secret) for secret in secrets)
        self._name = name
        self._tolerance_seconds = tolerance_seconds
        self._binary_mode = binary_mode
        self._clock = clock

    def __repr__(self) -> str:
        return f"StandardWebhooks({self._name}, {len(self._keys)} secrets)"

    async def authorize(self, request: Request, action: Action, resource: Resource) -> Principal | None:
        if not self._is_signed(request):
            return None
        if action != "event":
            raise ForbiddenError("A signature covers the body only, not which instance is meant; use a token")
        if not self._binary_mode and not _is_structured(request):
            raise ForbiddenError("A signature covers the body only: send the event in structured mode, or in a batch")
        return Principal(name=self._name)

    def knows(self, request: Request) -> bool:
        """Whether it can be signed, by its headers."""
        return self._claim(request) is not None

    def _is_signed(self, request: Request) -> bool:
        claim = self._claim(request)
        if claim is None:
            return False
        message_id, timestamp, signatures = claim
        content = f"{message_id}.{timestamp}.".encode("latin-1") + request.body
        expected = [_signature(key, content) for key in self._keys]
        found = [hmac.compare_digest(one, sent) for one in expected for sent in signatures]
        return any(found)

    def _claim(self, request: Request) -> tuple[str, str, list[bytes]] | None:
        message_id = request.header("webhook-id")
        timestamp = request.header("webhook-timestamp")
        signatures = _signatures(request.header("webhook-signature") or "")
        if not message_id or not timestamp or not signatures or not self._is_fresh(timestamp):
            return None
        return message_id, timestamp, signatures

    def _is_fresh(self, timestamp: str) -> bool:
        if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 15:
            return False
        return abs(self._clock() - int(timestamp)) <= self._tolerance_seconds


def _signatures(header: str) -> list[bytes]:
    """Those of version 1; others, which a sender may send beside them, are not for us."""
    found: list[bytes] = []
    for entry in header.split(" ")[:SIGNATURES_MAX]:
        version, _, text = entry.partition(",")
        if version == "v1" and text:
            found.append(text.encode("latin-1"))
    return found


def _signature(key: bytes, content: bytes) -> bytes:
    return base64.b64encode(hmac.new(key, content, hashlib.sha256).digest())


def _is_structured(request: Request) -> bool:
    content_type = (request.header("content-type") or "").lower()
    return content_type.startswith(("application/cloudevents+", "application/cloudevents-batch+"))


def _key_of(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a secret of StandardWebhooks() must be Base64, with or without 'whsec_'") from None
    if len(key) < KEY_BYTES_MIN:
        raise ValueError(f"a secret of StandardWebhooks() must have {KEY_BYTES_MIN} bytes or more, not {len(key)}")
    return key
