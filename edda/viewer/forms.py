"""The body of a form that was sent, within bounds."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

FORM_BYTES_MAX: Final = 512 * 1024
FIELDS_MAX: Final = 32


async def read_form(request: Request, *, fields_max: int = FIELDS_MAX) -> dict[str, str]:
    """The fields, once each. A body that is no form, or too large, has none."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES_MAX:
                return {}
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=fields_max))
    except (ValueError, ClientDisconnect):
        return {}
