"""Which commands there are, and how their words are read. A command's module is imported when somebody types it.

So that `edda --help` and `edda ls` start at once, this must import no command and no engine. A module of a command has
`add(parser)`, which says what it takes, `run(options)`, which returns an exit code, and `EXAMPLES` for its help.
"""

from __future__ import annotations

import difflib
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final, NoReturn

from edda import __version__
from edda.cli.failures import DONE, USAGE, Usage

GROUPS: Final[Mapping[str, Mapping[str, str]]] = {
    "run workflows": {
        "run": "run workflows until Ctrl-C or SIGTERM",
        "start": "start an instance",
    },
    "look": {
        "ls": "list instances, newest first",
        "show": "show one instance",
        "why": "say why an instance is where it is",
        "tail": "follow what happens",
        "viewer": "serve the viewer, in a browser",
    },
    "act": {
        "cancel": "cancel an instance, undoing it",
        "retry": "let an instance go on that was set aside, or could not be undone",
        "send": "send an event to who waits for it",
        "complete": "answer a callback, whose token somebody gave you",
        "requeue": "list dead letters of the outbox, or have one delivered",
    },
    "look after the database": {
        "db upgrade": "make the tables, or bring them up to date",
        "db check": "say whether the tables are up to date",
        "db sql": "print the statements that make the tables",
        "db gc": "forget instances that completed, failed or were cancelled",
        "doctor": "look for what is wrong",
        "bench": "measure how fast this database is",
    },
}
"""In the order of the help."""
COMMANDS: Final[Mapping[str, str]] = {name: what for group in GROUPS.values() for name, what in group.items()}
ALIASES: Final[Mapping[str, str]] = {"worker": "run"}
HELP_OPTIONS: Final = ("-h", "--help")

HELP: Final = """\
usage: edda COMMAND [arguments and options, in any order]
       edda COMMAND --help

Durable workflows in your own database.

{commands}
examples:
  edda run shop:app                         run the workflows of an app
  edda ls --status failed --since 1h        what failed in the last hour
  edda why order-42                         why it is where it is, what to do
  edda start shop:order order_id=42 --wait  start one, wait for its result
  edda doctor                               look for what is wrong

The database is --db URL, else EDDA_DATABASE_URL, else sqlite:///edda.db.
exit codes: 0 done, 1 it did not go well, 2 wrong usage, 3 no such thing,
            4 the database, 130 interrupted
"""


class CommandParser(ArgumentParser):
    """Raises `Usage` for what it does not understand: wrong usage is told like any other failure, in one line."""

    def error(self, message: str) -> NoReturn:
        raise Usage(f"{message}; {self.prog} --help says what it takes")


def parse(words: Sequence[str]) -> Namespace:
    """The options of the command that is meant, and with them `run`.

    Raises `Usage`; `SystemExit` where help or the version was all that was wanted, or nothing was said.
    """
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if words[:1] == ["--version"]:
        _leave_with(f"edda {__version__}\n")
    if not words or words[0] in HELP_OPTIONS:
        _leave_with(help_text(), asked=bool(words))
    name = command_of(words)
    parser, rest = parser_of(name), words[len(name.split()) :]
    if "--" in rest:  # what comes after it is no option, and argparse forgets that between options and arguments
        return parser.parse_args(rest)
    return parser.parse_intermixed_args(rest)


def command_of(words: Sequence[str]) -> str:
    """The command with which the words begin. Raises `Usage`, naming one that is alike, and `SystemExit` as `parse`."""
    first = ALIASES.get(words[0], words[0])
    for name in (first, " ".join([first, *words[1:2]])):
        if name in COMMANDS:
            return name
    if first.startswith("-"):
        raise Usage(f"{first} came first; a command comes first, and then its options. edda --help lists commands")
    second = words[1] if len(words) > 1 else ""
    if (text := help_text(first)) and second in ("", *HELP_OPTIONS):
        _leave_with(text, asked=bool(second))
    unknown = f"{first} {second}" if text else first
    alike = difflib.get_close_matches(unknown, [*COMMANDS, *ALIASES], n=1)
    meant = f"did you mean {alike[0]}? " if alike else ""
    raise Usage(f"there is no command {unknown!r}; {meant}edda --help lists them")


def _leave_with(text: str, *, asked: bool = True) -> NoReturn:
    """Help that was asked for is an answer; to somebody who said too little, it is an error."""
    (sys.stdout if asked else sys.stderr).write(text)
    raise SystemExit(DONE if asked else USAGE)


def parser_of(name: str) -> ArgumentParser:
    """The parser of a command, which imports its module."""
    module = import_module(f"edda.cli.{name.replace(' ', '_')}")
    summary = COMMANDS[name]
    parser = CommandParser(
        prog=f"edda {name}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=module.run)
    module.add(parser)
    return parser


def help_text(first: str = "") -> str:
    """All commands; or those of two words with this first one, where there are any."""
    if not first:
        return HELP.format(commands="\n".join(f"{title}:\n{_lines(names)}" for title, names in GROUPS.items()))
    lines = _lines({name: what for name, what in COMMANDS.items() if name.startswith(f"{first} ")})
    return lines and f"usage: edda {first} COMMAND\n\ncommands:\n{lines}\nedda {first} COMMAND --help says more.\n"


def _lines(commands: Mapping[str, str]) -> str:
    return "".join(f"  {name:<12}{what}\n" for name, what in commands.items())
