"""The data of events: plain JSON, or bytes as they are. Events leave the house, so nothing in them is only ours.

Where the codec of results keeps the type of every value, an event keeps what JSON can say; whoever receives it names
the model it is to become.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError, from_json, to_jsonable_python

from edda.engine.codec.values import Stored
from edda.exceptions import SerializationError


def encode_event_data(data: object) -> Stored:
    """Raises SerializationError for what JSON cannot say: NaN, lone surrogates, objects that pydantic does not know."""
    if isinstance(data, bytes | bytearray):
        return Stored(None, bytes(data))
    try:
        text = json.dumps(to_jsonable_python(data), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise SerializationError(f"the data of an event must be bytes or what JSON can say: {error}") from error
    return Stored(text, None)


def decode_event_data(text: str | None, blob: bytes | None, model: Any) -> Any:
    """What `event.data` is: the model that was asked for, else a value of JSON, else bytes, else None.

    Raises pydantic's ValidationError where the data does not fit the model.
    """
    if model is None:
        return blob if text is None else from_json(text)
    adapter = _adapter(model)
    return adapter.validate_python(blob) if text is None else adapter.validate_json(text)


@lru_cache(maxsize=1024)
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)
