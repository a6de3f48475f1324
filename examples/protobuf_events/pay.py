"""The bank: `python -m examples.protobuf_events.pay URL ORDER [--binary]` says that an order is paid."""

from __future__ import annotations

import argparse

import httpx2
from google.protobuf import json_format

from examples.protobuf_events.payments_pb2 import PaymentCompleted


def pay(url: str, order_id: str, *, binary: bool) -> None:
    payment = PaymentCompleted(order_id=order_id, amount_cents=4900, bank_reference="BANK-1")
    body = payment.SerializeToString() if binary else json_format.MessageToJson(payment).encode()
    headers = {
        "ce-specversion": "1.0",
        "ce-id": f"payment-of-{order_id}",
        "ce-source": "/bank",
        "ce-type": "payment.completed",
        "ce-subject": order_id,
        "content-type": "application/x-protobuf" if binary else "application/json",
    }
    httpx2.post(url, content=body, headers=headers).raise_for_status()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.protobuf_events.pay", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("order")
    parser.add_argument("--binary", action="store_true")
    options = parser.parse_args()
    pay(options.url, options.order, binary=options.binary)
