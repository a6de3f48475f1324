from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class PaymentCompleted(_message.Message):
    __slots__ = ("order_id", "amount_cents", "bank_reference")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_CENTS_FIELD_NUMBER: _ClassVar[int]
    BANK_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    amount_cents: int
    bank_reference: str
    def __init__(self, order_id: _Optional[str] = ..., amount_cents: _Optional[int] = ..., bank_reference: _Optional[str] = ...) -> None: ...
