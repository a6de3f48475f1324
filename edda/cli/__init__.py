"""The command line `edda`: looking at instances, acting on them, and looking after the database.

One module for each command, which is imported when that is typed (`commands`). It must know the public API, the ports
of storage and nothing of engines' insides. Laws: what is asked for goes to stdout and nothing else does; a failure is
one line on stderr and an exit code of `failures`; `--json` prints one JSON document, or one a line.
"""

from __future__ import annotations

import inspect
import sys
from argparse import Namespace
from collections.abc import Sequence

from edda.cli import failures, streams
from edda.cli.commands import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    options = Namespace()
    streams.make_sound()
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        return _run(options)
    except SystemExit as exit_:  # somebody asked for help, or said nothing at all
        return int(exit_.code or 0)
    except KeyboardInterrupt:
        return failures.INTERRUPTED
    except BrokenPipeError:  # `edda ls | head`: whoever reads has enough
        sys.stderr.close()
        return failures.DONE
    except Exception as error:
        from edda.cli.terminal import note

        code, text = failures.told(error, options)
        note(f"edda: {text}")
        return code


def _run(options: Namespace) -> int:
    result = options.run(options)
    if not inspect.iscoroutine(result):
        return int(result)
    import asyncio

    return int(asyncio.run(result))
