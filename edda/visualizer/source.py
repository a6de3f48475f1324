"""What of a module's text a workflow's diagram needs: the function, its helpers, and how what it names is declared.

This text is what is drawn, shown and stored: it stands alone, is plain Python for `diagram`, and changes
only when something in it does. Bodies of activities and values of constants stay out of it (there may be secrets in
them), apart from the names of events. What the module imports from others is looked up among the living objects.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from edda.activity import Activity
from edda.compensation import compensations
from edda.events import Event
from edda.visualizer.analyzer import diagram
from edda.visualizer.graph import Graph
from edda.visualizer.names import Function, Names, names_in
from edda.visualizer.svg import to_svg
from edda.workflow import Workflow

Drawable = Workflow[..., Any] | Callable[..., Any] | str
"""A workflow, its function, or its source text."""

NAMING: Final = frozenset({"edda.wait_event", "edda.send_event", "edda.send_event_transactional", "edda.Event"})
"""What takes the name of an event, which may be a constant of the module."""


def draw(workflow: Drawable) -> str:
    """The diagram as the text of an SVG file that stands alone."""
    return to_svg(diagram(workflow) if isinstance(workflow, str) else diagram_of(workflow))


def diagram_of(workflow: Workflow[..., Any] | Callable[..., Any]) -> Graph:
    """The graph of a workflow or its function. Raises OSError where there is no source text, as in a bare REPL."""
    name: str = workflow.name if isinstance(workflow, Workflow) else workflow.__name__
    return diagram(source_of(cast("Callable[..., Any]", workflow)), name)


def source_of(workflow: Workflow[..., Any] | Callable[..., Any]) -> str:
    """The text of a workflow and of what it needs. Raises OSError where there is none."""
    function: Callable[..., Any] = workflow.function if isinstance(workflow, Workflow) else workflow
    function = inspect.unwrap(function)
    if "." in function.__qualname__:  # of a class or of another function: what is around it is not known here
        return textwrap.dedent(inspect.getsource(function))
    lines, _ = inspect.findsource(function)
    return _Excerpt("".join(lines), getattr(function, "__globals__", {})).of(function.__name__)


class _Excerpt:
    """The parts of one module's text, by the names that they define."""

    def __init__(self, text: str, objects: Mapping[str, Any]) -> None:
        self.text = text
        self.objects = objects
        self.names, self.statements = _read(text)
        self.taken: dict[str, str] = {}

    def of(self, name: str) -> str:
        self._take(name, "")
        parts = self.taken.values()
        imports = [part for part in parts if part.startswith(("import ", "from "))]
        small = [part for part in parts if part not in imports and "\n" not in part]
        large = [part for part in parts if part not in imports and "\n" in part]
        own = large[:1] or small
        rest = [part for part in (*large, *small) if part not in own]
        head = _together(imports)
        return "\n\n\n".join(part for part in (head, *own, *rest) if part) + "\n"

    def _take(self, name: str, used_as: str) -> None:
        if name in self.taken:
            return
        statement = self.statements.get(name)
        self.taken[name] = ""
        if isinstance(statement, Function):
            self._take_function(name, statement)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            self.taken[name] = _declaration(name, self.objects.get(name)) or _one_import(statement, name)
        elif name in self.names.events or (name in self.names.texts and used_as == "name"):
            assert statement is not None
            self.taken[name] = self._segment(statement)
            self._take_names(statement)

    def _take_function(self, name: str, function: Function) -> None:
        declared = self.names.declared.get(name)
        if declared is None or declared.sort == "workflow":
            self.taken[name] = self._segment(function)
            self._take_names(function)
            return
        stub = ast.parse(self._segment(function)).body[0]
        assert isinstance(stub, Function)
        stub.body = [ast.Expr(ast.Constant(...))]
        self.taken[name] = ast.unparse(stub)
        for decorator in function.decorator_list:
            self._take_names(decorator)

    def _take_names(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _names_an_event(self.names, node):
                for given in (*node.args, *(keyword.value for keyword in node.keywords)):
                    if isinstance(given, ast.Name):
                        self._take(given.id, "name")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                self._take(node.id, "")

    def _segment(self, statement: ast.stmt) -> str:
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
        return "\n".join(self.text.split("\n")[first - 1 : statement.end_lineno])


@functools.lru_cache(maxsize=8)
def _read(text: str) -> tuple[Names, dict[str, ast.stmt]]:
    """A module with many workflows is read once."""
    tree = ast.parse(text)
    return names_in(tree), {name: statement for statement in tree.body for name in _defines(statement)}


def _defines(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [(alias.asname or alias.name).split(".")[0] for alias in names]
        case _:
            return []


def _names_an_event(names: Names, call: ast.Call) -> bool:
    made = call.func.value if isinstance(call.func, ast.Subscript) else call.func
    return names.canonical(made) in NAMING


def _one_import(statement: ast.Import | ast.ImportFrom, name: str) -> str:
    """Only what is used of it."""
    own = [alias for alias in statement.names if (alias.asname or alias.name).split(".")[0] == name]
    if isinstance(statement, ast.Import):
        return ast.unparse(ast.Import(names=own))
    return ast.unparse(ast.ImportFrom(module=statement.module, names=own, level=statement.level))


def _together(imports: list[str]) -> str:
    """One line for each module."""
    plain = sorted({line for line in imports if line.startswith("import ")})
    named: dict[str, set[str]] = {}
    for line in imports:
        if line.startswith("from "):
            module, _, name = line.partition(" import ")
            named.setdefault(module, set()).add(name)
    return "\n".join([*plain, *(f"{module} import {', '.join(sorted(named[module]))}" for module in sorted(named))])


def _declaration(name: str, what: object) -> str:
    """Something that another module declares, in the words in which this one could have declared it."""
    if isinstance(what, Activity):
        undo = what.on_failure.compensation.name if what.on_failure else ""
        below = f"@on_failure({undo!r})\n" if undo else ""
        return f"@activity(name={what.name!r})\n{below}async def {name}(ctx): ..."
    if isinstance(what, Workflow):
        return f"@workflow(name={what.name!r})\nasync def {name}(ctx): ..."
    if isinstance(what, Event):
        return f"{name} = Event({what.type!r})"
    known = next((one for one in compensations if one.function is what), None)
    return f"@compensation(name={known.name!r})\nasync def {name}(ctx): ..." if known else ""
