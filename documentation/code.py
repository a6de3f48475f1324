"""What the code says of itself, as Markdown: options, statuses, tables.

The words come from docstrings, the numbers from the objects. What is missing there is mended there, not here.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import pairwise
from types import ModuleType
from typing import Any, Final

from edda import EddaApp
from edda.core.lifecycle import TRANSITIONS, Status
from edda.http import options
from edda.storage.sql import schema

UNITS: Final = {"_seconds": "seconds", "_bytes": "bytes", "_per_minute": "per minute"}
KINDS: Final = {
    schema.Kind.KEY: "id or name",
    schema.Kind.WORD: "word",
    schema.Kind.TEXT: "text",
    schema.Kind.BYTES: "bytes",
    schema.Kind.INTEGER: "integer",
    schema.Kind.FLAG: "0 or 1",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# -- options -------------------------------------------------------------------------------------------------------


def app_options() -> str:
    parameters = inspect.signature(EddaApp).parameters.values()
    meanings = _argument_docs(EddaApp.__doc__ or "", [parameter.name for parameter in parameters])
    rows = [
        (f"`{parameter.name}`", _shown(parameter.default), _unit(parameter.name), meanings[parameter.name])
        for parameter in parameters
    ]
    return table(("Option", "Default", "Unit", "Meaning"), rows)


def http_options() -> str:
    return _fields_table(options.HttpOptions, options)


def _argument_docs(docstring: str, names: Sequence[str]) -> dict[str, str]:
    """What `Args:` says of each; raises KeyError where it says nothing of one."""
    _, _, said = inspect.cleandoc(docstring).partition("Args:\n")
    text = " ".join(said.split())
    starts = {name: re.search(rf"(?:^|(?<=[.;] )){name}: ", text) for name in names}
    missing = [name for name, found in starts.items() if found is None]
    if missing:
        raise KeyError(f"the docstring of EddaApp says nothing of {', '.join(missing)}")
    ends = [*sorted(found.start() for found in starts.values() if found), len(text)]
    return {
        name: _sentence(text[found.end() : min(end for end in ends if end > found.start())])
        for name, found in starts.items()
        if found
    }


def _fields_table(owner: type[Any], module: ModuleType) -> str:
    said = _attribute_docs(module)[owner.__name__]
    rows = [
        (f"`{field.name}`", _shown(field.default), _unit(field.name), said.get(field.name, ""))
        for field in fields(owner)
    ]
    return table(("Option", "Default", "Unit", "Meaning"), rows)


def _attribute_docs(module: ModuleType) -> dict[str, dict[str, str]]:
    """The strings below the attributes of each class, and of the module itself, whose name is empty."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(module)))
    classes = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
    return {name: _docs_below(body) for name, body in {"": tree.body, **classes}.items()}


def _docs_below(body: Sequence[ast.stmt]) -> dict[str, str]:
    said: dict[str, str] = {}
    for statement, below in pairwise(body):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                said[name] = " ".join(text.split())
            case _:
                pass
    return said


def _shown(default: object) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    if isinstance(default, tuple) and default and all(isinstance(item, type) for item in default):
        return f"`({', '.join(item.__name__ for item in default)},)`"
    if isinstance(default, int) and not isinstance(default, bool) and default >= 10_000:
        return f"{default:,}"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default!r}`"


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


def _sentence(text: str) -> str:
    text = text.strip().rstrip(";").strip()
    return text[:1].upper() + text[1:]


# -- statuses ------------------------------------------------------------------------------------------------------


def transitions() -> str:
    rows = [(f"`{status}`", _statuses(TRANSITIONS[status] - {status})) for status in Status]
    return table(("From", "To"), rows)


def _statuses(after: Iterable[Status]) -> str:
    order = list(Status)
    return ", ".join(f"`{status}`" for status in sorted(after, key=order.index)) or "nothing: it has ended"


# -- tables --------------------------------------------------------------------------------------------------------


def tables() -> str:
    said = _attribute_docs(schema)[""]
    names = {value.name: name for name, value in vars(schema).items() if isinstance(value, schema.Table)}
    return "\n\n".join(_one_table(item, said.get(names[item.name], "")) for item in (schema.SCHEMA, *schema.TABLES))


def _one_table(item: schema.Table, meaning: str) -> str:
    rows = [
        (f"`{column.name}`" + (" (key)" if column.name in item.key else ""), KINDS[column.kind], _optional(column))
        for column in item.columns
    ]
    return f"### `{item.name}`\n\n{meaning}\n\n{table(('Column', 'Holds', ''), rows)}".replace("\n\n\n", "\n")


def _optional(column: schema.Column) -> str:
    return "may be null" if column.optional else ""
