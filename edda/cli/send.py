"""`edda send TYPE`: put an event into the inbox, as if it had come by HTTP."""

from __future__ import annotations

import sys
import uuid
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from edda.cli.failures import NotWell, Usage
from edda.cli.opening import store_of
from edda.cli.options import json_or_text, with_database, with_json
from edda.cli.terminal import say, say_json
from edda.core.event import JSON_TYPE, TARGET, CloudEvent, Receipt
from edda.core.routing import EventKey, event_key
from edda.engine.codec import encode_event_data
from edda.exceptions import InstanceEndedError, InstanceNotFoundError

if TYPE_CHECKING:
    from edda.storage.sql.store import SqlStore

EXAMPLES = """\
  edda send payment.completed --data '{"order_id": "42", "amount": 9.5}'
  edda send approved --to order-42 --data true
  edda send photo.taken --file photo.jpg --type image/jpeg
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("event_type", metavar="TYPE", help="of the event")
    parser.add_argument("--data", metavar="JSON", help="its data; - reads it from the standard input")
    parser.add_argument("--file", metavar="FILE", help="its data: any bytes")
    parser.add_argument("--type", metavar="TYPE", dest="content_type", help="content type of a file's bytes")
    parser.add_argument("--source", default="/edda/cli", help="of the event; default /edda/cli")
    parser.add_argument("--id", help="of the event: the same source and id are stored once")
    parser.add_argument("--subject", help="of the event")
    parser.add_argument("--to", metavar="INSTANCE", help="only for this instance")
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    event = event_of(options)
    async with store_of(options) as store:
        receipt = await deliver(store, event)
    if options.json:
        say_json({"id": event.id, "source": event.source, "receipt": receipt})
    elif receipt is Receipt.DUPLICATE:
        say(f"{event.id} was here already; nothing changed")
    else:
        say(event.id)
    return 0


def event_of(options: Namespace) -> CloudEvent:
    if not options.event_type or not options.source:
        raise Usage("an event has a type and a source, and neither is empty")
    json_text, blob = _data(options)
    content_type = JSON_TYPE if json_text is not None else options.content_type
    return CloudEvent(
        id=options.id or str(uuid.uuid4()),
        source=options.source,
        type=options.event_type,
        subject=options.subject,
        datacontenttype=content_type or ("application/octet-stream" if blob is not None else None),
        json=json_text,
        blob=blob,
        extensions={TARGET: options.to} if options.to else {},
    )


def _data(options: Namespace) -> tuple[str | None, bytes | None]:
    if options.file is not None:
        if options.data is not None:
            raise Usage("the data comes from --data or from --file, not from both")
        return None, Path(options.file).read_bytes()
    if options.data is None:
        return None, None
    text = sys.stdin.read() if options.data == "-" else options.data
    return encode_event_data(json_or_text(text)).text, None


async def deliver(store: SqlStore, event: CloudEvent) -> Receipt:
    """Store it, and lead it to those who wait; a worker does the rest where that is cut off."""
    (receipt,) = await store.accept([event])
    if receipt is Receipt.NO_SUCH_INSTANCE:
        raise InstanceNotFoundError(event.target or "")
    if receipt is Receipt.INSTANCE_ENDED:
        raise InstanceEndedError(event.target or "")
    if receipt is Receipt.STORED:
        left: tuple[EventKey, ...] = (event_key(event),)
        while left:
            left = (await store.route(left)).left
        store.hint()
    return receipt


def not_answered(token: str) -> NotWell:
    return NotWell(f"{token} was answered before; the first answer counts")
