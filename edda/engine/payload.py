"""How large one value may be that is stored: refused where it is produced, so that whoever produced it hears of it."""

from __future__ import annotations

from edda.engine.codec import Stored, size_bytes
from edda.exceptions import PayloadTooLargeError


def check_size(what: str, value: Stored | str, *, limit: int) -> None:
    """Raises PayloadTooLargeError; `what` names the value, and whose it is."""
    size = size_bytes(value) if isinstance(value, str) else value.size
    if size > limit:
        raise PayloadTooLargeError(
            f"{what} has {size} bytes as stored, more than max_payload_bytes={limit}. Store it elsewhere and pass a "
            "reference, or raise the limit of the EddaApp."
        )
