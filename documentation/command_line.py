"""The command line, as Markdown: one heading for each command, made from its own parser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from edda.cli.commands import ALIASES, COMMANDS, parser_of


def commands() -> str:
    return "\n\n".join(_section(name) for name in COMMANDS)


def _section(name: str) -> str:
    parser = parser_of(name)
    title = " or ".join(f"`edda {one}`" for one in (name, *(alias for alias, of in ALIASES.items() if of == name)))
    parts = [f"### {title}", parser.description or "", _rows(parser), _examples(parser)]
    return "\n\n".join(part for part in parts if part)


def _rows(parser: argparse.ArgumentParser) -> str:
    from documentation.code import table

    shown = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    rows = [(_spelled(action), _help(action)) for action in shown]
    return table(("Argument", "Meaning"), rows) if rows else ""


def _spelled(action: argparse.Action) -> str:
    value = _metavar(action)
    if not action.option_strings:
        return f"`{value}`"
    return ", ".join(f"`{option} {value}`" if value else f"`{option}`" for option in action.option_strings)


def _metavar(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper() if action.option_strings else action.dest


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


def _examples(parser: argparse.ArgumentParser) -> str:
    said = (parser.epilog or "").removeprefix("examples:\n").rstrip()
    return f"```text\n{_dedented(said.splitlines())}\n```" if said else ""


def _dedented(lines: Sequence[str]) -> str:
    return "\n".join(line.removeprefix("  ") for line in lines)
