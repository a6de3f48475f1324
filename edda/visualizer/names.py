"""What the names in a source text mean: imports and their aliases, activities, workflows, events, helper functions.

From the text alone, nothing is imported or run. A name that the text does not explain keeps its own spelling, and the
authoring functions of edda (`wait_event`, ...) are known without their import: the text may be that of one function.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

AUTHORING: Final = frozenset(
    {
        "wait_event",
        "wait_timer",
        "wait_until",
        "sleep",
        "sleep_until",
        "send_event",
        "send_event_transactional",
        "register_compensation",
        "activity",
        "workflow",
        "compensation",
        "on_failure",
        "on_failure_with_result",
        "Event",
    }
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A function with a decorator of edda: which one, and the name under which history knows it."""

    sort: str
    """`activity`, `workflow` or `compensation`."""
    name: str
    function: Function | None = None
    undo: str = ""
    """Name of the compensation of an activity."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one source text."""

    aliases: dict[str, str] = field(default_factory=dict[str, str])
    """Local name -> where it comes from, `asyncio` or `edda.wait_event`."""
    declared: dict[str, Declared] = field(default_factory=dict[str, Declared])
    functions: dict[str, Function] = field(default_factory=dict[str, Function])
    """Helpers; methods as `Class.name`."""
    events: dict[str, str] = field(default_factory=dict[str, str])
    """Declared events: name -> type."""
    texts: dict[str, str] = field(default_factory=dict[str, str])
    """Constants of the module that are text."""
    owner: dict[int, str] = field(default_factory=dict[int, str])
    """The class of a method, by `id` of its syntax node."""

    def canonical(self, expression: ast.expr) -> str:
        """The dotted name that an expression means, such as `asyncio.gather`; empty where it is no name."""
        match expression:
            case ast.Name(id=name):
                return self.aliases.get(name, f"edda.{name}" if self._is_bare(name) else name)
            case ast.Attribute(value=value, attr=attribute):
                before = self.canonical(value)
                return f"{before}.{attribute}" if before else ""
            case _:
                return ""

    def _is_bare(self, name: str) -> bool:
        return name in AUTHORING and name not in self.functions and name not in self.declared

    def text_of(self, expression: ast.expr | None) -> str | None:
        """What an expression says where it is text that stands in the source."""
        match expression:
            case ast.Constant(value=str(text)):
                return text
            case ast.Name(id=name):
                return self.texts.get(name)
            case _:
                return None


def names_in(tree: ast.Module) -> Names:
    """Read the names of a source text."""
    names = Names()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.aliases.update(_aliases(node))
    for statement, owner in _statements(tree):
        if isinstance(statement, Function):
            _add_function(names, statement, owner)
        else:
            _add_assignment(names, statement)
    for node in ast.walk(tree):
        if isinstance(node, Function) and node.name not in names.functions:
            _add_nested(names, node)
    _link_compensations(names)
    return names


def _add_nested(names: Names, function: Function) -> None:
    """Activities that are declared inside a function; its other functions are its own affair."""
    if id(function) not in names.owner and (declared := declaration_of(names, function)) is not None:
        names.declared.setdefault(function.name, declared)


def _aliases(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    for alias in node.names:
        if isinstance(node, ast.Import):
            yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0], alias.name.split(".")[0])
        else:
            yield alias.asname or alias.name, _home(node.module or "", alias.name)


def _home(module: str, name: str) -> str:
    """`edda.events.wait_event` and `edda.wait_event` are one function; other imported names are plain."""
    if module == "edda" or module.startswith("edda."):
        return f"edda.{name}"
    return f"asyncio.{name}" if module.split(".")[0] == "asyncio" else name


def _statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Those of the module and of its classes, also under `if` and `try`; with the name of the class."""
    pending: list[tuple[ast.AST, str]] = [(tree, "")]
    while pending:
        parent, owner = pending.pop()
        for child in ast.iter_child_nodes(parent):
            if isinstance(child, Function | ast.Assign | ast.AnnAssign):
                yield child, owner
            elif isinstance(child, ast.ClassDef):
                pending.append((child, child.name))
            elif isinstance(child, ast.stmt | ast.excepthandler):
                pending.append((child, owner))


def _add_function(names: Names, function: Function, owner: str) -> None:
    key = f"{owner}.{function.name}" if owner else function.name
    names.owner[id(function)] = owner
    declared = declaration_of(names, function)
    if declared is None:
        names.functions[key] = function
    else:
        names.declared[key] = declared


def declaration_of(names: Names, function: Function) -> Declared | None:
    """What the decorators of edda on a function say of it; None for a plain function."""
    sorts: dict[str, str] = {}
    undo = ""
    for decorator in function.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        sort = names.canonical(call.func if call else decorator).removeprefix("edda.")
        if sort in ("activity", "workflow", "compensation"):
            sorts[sort] = _chosen_name(names, call) or function.name
        elif sort in ("on_failure", "on_failure_with_result") and call and call.args:
            undo = names.text_of(call.args[0]) or ast.unparse(call.args[0])
    for sort in ("workflow", "activity", "compensation"):
        if sort in sorts:
            return Declared(sort=sort, name=sorts[sort], function=function, undo=undo)
    return None


def _chosen_name(names: Names, call: ast.Call | None) -> str | None:
    given = call.keywords if call else ()
    return next((names.text_of(keyword.value) for keyword in given if keyword.arg == "name"), None)


def _add_assignment(names: Names, statement: ast.stmt) -> None:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            pass
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            pass
        case _:
            return
    text = names.text_of(value)
    if text is not None:
        names.texts[name] = text
    elif (event := _event_type(names, value)) is not None:
        names.events[name] = event


def _event_type(names: Names, value: ast.expr) -> str | None:
    """The type in `Event[Payment]("order.paid", key="order_id")`."""
    if not isinstance(value, ast.Call):
        return None
    made = value.func.value if isinstance(value.func, ast.Subscript) else value.func
    if names.canonical(made) != "edda.Event":
        return None
    given = value.args[0] if value.args else next((k.value for k in value.keywords if k.arg == "type"), None)
    return names.text_of(given)


def _link_compensations(names: Names) -> None:
    """A compensation is shown under the name that history has for it."""
    for key, declared in list(names.declared.items()):
        undo = names.declared.get(declared.undo)
        if undo is not None:
            names.declared[key] = Declared(
                sort=declared.sort, name=declared.name, function=declared.function, undo=undo.name
            )
