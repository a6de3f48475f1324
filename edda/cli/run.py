"""`edda run` and `edda worker`: a process that runs workflows until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from argparse import ArgumentParser, Namespace
from types import ModuleType
from typing import Any, Final

from edda.app import EddaApp
from edda.cli.failures import Usage
from edda.cli.options import VARIABLE, url_of, with_database
from edda.cli.target import apps_in, load
from edda.cli.terminal import note
from edda.workflow import workflows as declared_workflows

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
EXAMPLES = """\
  edda run shop:app                  the app as it is
  edda run shop.workflows --db URL   every workflow of a module, there
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="MODULE[:APP]", help="an EddaApp, or a module with workflows")
    parser.add_argument(
        "--log-level",
        default="INFO",
        type=str.upper,
        choices=LEVELS,
        metavar="LEVEL",
        help=f"what is logged to stderr: {', '.join(LEVELS)}; default INFO",
    )
    with_database(parser, first="that of the app")


async def run(options: Namespace) -> int:
    """The first signal ends it within the app's grace; a second one at once."""
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    app = app_of(load(options.target), options)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, _stop, stop)
    async with app:
        names = ", ".join(sorted(app.workflow_names)) or "no workflow at all"
        note(f"Worker {app.worker_id or '(waits for its place)'} runs {names}. Ctrl-C ends it.")
        await stop.wait()
        note("Stopping; once more ends it at once.")
    return 0


def _stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(130)
    stop.set()


def app_of(found: Any, options: Namespace) -> EddaApp:
    """The app that is meant; a module with exactly one has that, and one without gets a new one."""
    if isinstance(found, EddaApp):
        return _with_its_database(found, options)
    if not isinstance(found, ModuleType):
        module = options.target.partition(":")[0]
        raise Usage(f"{options.target} is a {type(found).__name__}, and no EddaApp; write {module}:APP, or {module}")
    apps = apps_in(found)
    if len(apps) > 1:
        raise Usage(f"{options.target} has {len(apps)} apps; say which: {options.target}:{' or :'.join(apps)}")
    for app in apps.values():
        return _with_its_database(app, options)
    if not declared_workflows.by_name:
        raise Usage(f"{options.target} has no workflow, and no EddaApp")
    return EddaApp("edda", db_url=url_of(options))


def _with_its_database(app: EddaApp, options: Namespace) -> EddaApp:
    """An app names its database itself; `--db` is to say the same or nothing."""
    if options.db is not None and options.db != app.db_url:
        raise Usage(f"the app has a database of its own; leave --db out, or read {VARIABLE} in the code")
    options.db = app.db_url
    return app
