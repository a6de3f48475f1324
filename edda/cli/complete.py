"""`edda complete TOKEN`: answer a callback."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from edda.callbacks import answer_to
from edda.cli.failures import Usage
from edda.cli.opening import store_of
from edda.cli.options import json_or_text, with_database, with_json
from edda.cli.send import deliver, not_answered
from edda.cli.terminal import say, say_json
from edda.core.event import JSON_TYPE, Receipt
from edda.engine.codec import encode_event_data

EXAMPLES = """\
  edda complete "$TOKEN" --data '{"approved": true}'
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("token")
    parser.add_argument("--data", metavar="JSON", default="null", help="the answer; default null")
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    data = encode_event_data(json_or_text(options.data))
    try:
        answer = answer_to(options.token, json=data.text, blob=None, content_type=JSON_TYPE)
    except ValueError as error:
        raise Usage(str(error)) from error
    async with store_of(options) as store:
        receipt = await deliver(store, answer)
    if receipt is Receipt.DUPLICATE:
        raise not_answered(options.token)
    if options.json:
        say_json({"instance": answer.target, "receipt": receipt})
    else:
        say(f"answered, for {answer.target}")
    return 0
