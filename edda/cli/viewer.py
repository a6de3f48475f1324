"""`edda viewer`: the viewer, on this machine, read-only unless asked otherwise."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, Namespace
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from edda.cli.failures import Usage, told
from edda.cli.opening import reader_of
from edda.cli.options import url_of, with_database
from edda.cli.terminal import note
from edda.exceptions import MissingExtraError, StorageError

if TYPE_CHECKING:
    from edda.app import EddaApp

EXAMPLES = """\
  edda viewer                            on this machine, looks only
  edda viewer --port 9000 --open
  edda viewer --allow-actions            start, cancel, retry, send, requeue
  edda viewer shop:app --allow-actions   and forms for what its workflows take
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument(
        "target",
        nargs="?",
        metavar="MODULE[:APP]",
        help="an EddaApp, or a module with workflows: for forms that start them; nothing of it is run",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    parser.add_argument("--port", type=int, default=8787, help="default 8787; 0: any")
    parser.add_argument("--allow-actions", action="store_true", help="let visitors act, not only look")
    parser.add_argument("--token", help="what visitors must show; default: one made by chance")
    parser.add_argument(
        "--allowed-host", action="append", default=[], metavar="NAME", help="another name it is asked by"
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    with_database(parser)


def run(options: Namespace) -> int:
    for package in ("starlette", "jinja2", "uvicorn"):
        if find_spec(package) is None:
            raise MissingExtraError(what="the viewer", package=package, extra="viewer")
    if find_spec("edda.viewer") is None:
        raise Usage("this edda has no viewer")
    if not 0 <= options.port < 1 << 16:
        raise Usage(f"{options.port} is no port")
    app = None if options.target is None else _app_of(options)
    asyncio.run(_warn_where_nothing_is_seen(options))
    try:
        import_module("edda.viewer").serve(
            url_of(options),
            app=app,
            host=options.host,
            port=options.port,
            allow_actions=options.allow_actions,
            token=options.token,
            allowed_hosts=options.allowed_host,
            open_browser=options.open,
        )
    except ValueError as error:
        raise Usage(str(error)) from error
    return 0


def _app_of(options: Namespace) -> EddaApp:
    """Whose forms are shown; its database is the one that is looked at."""
    from edda.cli.run import app_of  # only here: to look at a database needs no engine
    from edda.cli.target import load

    return app_of(load(options.target), options)


async def _warn_where_nothing_is_seen(options: Namespace) -> None:
    """It serves all the same: the database may come later, and each page says what is wrong with it."""
    try:
        async with reader_of(options):
            pass
    except StorageError as error:
        note(f"Nothing to see yet: {told(error, options)[1]}")
