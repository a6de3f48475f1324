"""`edda start`: start an instance, validated as in code; without a worker, it waits for one."""

from __future__ import annotations

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import ValidationError

from edda.app_instances import new_start
from edda.cli.failures import NotWell, Usage
from edda.cli.opening import store_of
from edda.cli.options import duration_us, json_or_text, pair, with_database, with_json
from edda.cli.target import apps_in, load, module_of
from edda.cli.terminal import note, say, say_json
from edda.core.history import InstanceId
from edda.core.lifecycle import ENDED, SET_ASIDE, Status
from edda.engine.environment import Environment
from edda.engine.plans import plan_of
from edda.engine.starts import check_same_start
from edda.storage.port import InstanceRow
from edda.why import error_in_words
from edda.workflow import Workflow, check_id

if TYPE_CHECKING:
    from edda.storage.sql.store import SqlStore

POLL_SECONDS: Final = 0.2
PAYLOAD_BYTES_MAX: Final = 1 << 20
EXAMPLES = """\
  edda start shop:order order_id=42 amount=9.5
  edda start shop:order --id order-42 --args '{"order_id": "42", "items": [1]}'
  edda start shop:order order_id=42 --wait --timeout 1m
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="MODULE:WORKFLOW", help="the workflow, by the name of its function")
    parser.add_argument("arguments", nargs="*", default=[], type=pair, metavar="NAME=VALUE", help="JSON, or else text")
    parser.add_argument("--args", metavar="JSON", help="all arguments as one JSON object")
    parser.add_argument("--id", metavar="ID", help="one of your own: starting it again changes nothing")
    parser.add_argument("--wait", action="store_true", help="wait for its result, and print that")
    parser.add_argument("--timeout", type=duration_us, metavar="DURATION", help="wait no longer than that")
    with_database(parser, first="that of the app in MODULE")
    with_json(parser)


async def run(options: Namespace) -> int:
    workflow = _workflow(options.target)
    if options.id is not None:
        _check_id(options.id)
    options.db = options.db or _database_of_app(options.target)
    new = new_start(
        workflow,
        (),
        fitted(workflow, options),
        id=options.id,
        environment=Environment(),
        payload_bytes_max=PAYLOAD_BYTES_MAX,
    )
    async with store_of(options) as store:
        creation = await store.create(new)
        if not creation.created:
            check_same_start(new, creation, on_conflict="error")
        store.hint()
        if options.wait:
            if sys.stderr.isatty():
                note(f"Waiting for the end of {new.id}; Ctrl-C stops waiting, and not the instance.")
            return _say_end(options, await _end_of(store, new.id, options.timeout))
    if options.json:
        say_json({"id": new.id, "created": creation.created})
    else:
        say(new.id)
    return 0


def _workflow(target: str) -> Workflow[..., Any]:
    found = load(target)
    if not isinstance(found, Workflow):
        raise Usage(f"{target} is a {type(found).__name__}, and no workflow; write {target.partition(':')[0]}:WORKFLOW")
    return cast("Workflow[..., Any]", found)


def _check_id(instance_id: str) -> None:
    try:
        check_id(instance_id)
    except ValueError as error:
        raise Usage(str(error)) from error


def _database_of_app(target: str) -> str | None:
    """Where `edda run` of the same module looks for work. None: the module has no app, and `url_of` decides."""
    urls = {app.db_url for app in apps_in(module_of(target)).values()}
    if len(urls) > 1:
        raise Usage(f"the apps of {target.partition(':')[0]} have {len(urls)} databases: say which with --db")
    return next(iter(urls), None)


def fitted(workflow: Workflow[..., Any], options: Namespace) -> dict[str, Any]:
    """The arguments. A value that is JSON by chance (an id of digits) is taken as text where only text fits."""
    given = _object(options.args)
    texts = dict(options.arguments)
    if twice := sorted(given.keys() & texts.keys()):
        raise Usage(f"{', '.join(twice)} is given twice")
    parsed = given | {name: json_or_text(text) for name, text in texts.items()}
    signature = plan_of(workflow).signature
    try:
        signature.bind((), parsed)
    except ValidationError as error:
        wrong = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
        parsed |= {name: texts[name] for name in wrong & texts.keys()}
        signature.bind((), parsed)
    except TypeError as error:
        raise Usage(str(error)) from error
    return parsed


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    value = json_or_text(text)
    if not isinstance(value, dict):
        raise Usage("--args wants one JSON object, with the arguments by name")
    return cast("dict[str, Any]", value)


async def _end_of(store: SqlStore, instance_id: InstanceId, timeout_us: int | None) -> InstanceRow:
    """The row when it has ended, or was set aside: then nobody knows when."""
    try:
        async with asyncio.timeout(None if timeout_us is None else timeout_us / 1_000_000):
            while True:
                row = await store.instance(instance_id)
                if row is None:
                    raise NotWell(f"{instance_id} is gone")
                if row.status in ENDED | SET_ASIDE:
                    return row
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise NotWell(f"{instance_id} has not ended yet; look: edda why {instance_id}") from None


def _say_end(options: Namespace, row: InstanceRow) -> int:
    well = row.status is Status.COMPLETED
    if options.json:
        say_json({"id": row.id, "status": row.status, "output": row.output, "error": row.error})
        return 0 if well else 1
    if not well:
        raise NotWell(f"{row.id} is {row.status}: {error_in_words(row.error)}")
    say(row.output if row.output is not None else f"{len(row.blob or b'')} bytes")
    return 0
