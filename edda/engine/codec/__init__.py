"""Values, calls and errors <-> what is stored. Import from here."""

from edda.engine.codec.calls import BoundArguments, SignatureCodec, canonical_hash
from edda.engine.codec.errors import (
    ErrorSummary,
    class_name,
    decode_error,
    encode_error,
    in_words,
    message_of,
    register_error,
    summarise_error,
)
from edda.engine.codec.event_data import decode_event_data, encode_event_data
from edda.engine.codec.values import Stored, ValueCodec, size_bytes

__all__ = [
    "Stored",
    "size_bytes",
    "ValueCodec",
    "BoundArguments",
    "SignatureCodec",
    "canonical_hash",
    "encode_event_data",
    "decode_event_data",
    "encode_error",
    "decode_error",
    "register_error",
    "summarise_error",
    "ErrorSummary",
    "message_of",
    "class_name",
    "in_words",
]
