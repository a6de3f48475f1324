"""The durable calls of one expression, in the order in which Python evaluates them.

What makes several calls run at once is read here, too: `asyncio.gather`, tasks, comprehensions of coroutines. A call
that is not awaited where it stands only *begins* there (`Parallel(joined=False)`): it may end at any later time.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Final, Protocol

from edda.visualizer.calls import Place, node_of, words_of
from edda.visualizer.graph import Block, Branch, Choice, Loop, Node, NodeKind, Parallel, Run, Step
from edda.visualizer.names import Function

Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

PASSING_ON: Final = frozenset({"asyncio.wait_for", "asyncio.shield"})
"""They await their first argument, and are awaited themselves."""
ABANDONING: Final = frozenset(
    {"asyncio.timeout", "asyncio.timeout_at", "asyncio.wait_for", "asyncio.wait", "asyncio.as_completed"}
)
"""They end while a call is still under way, or let the function do so."""
BEGINNING: Final = frozenset({"create_task", "ensure_future"})


class Surroundings(Protocol):
    """The function that an expression stands in, as far as expressions need it."""

    @property
    def place(self) -> Place: ...

    def abandon(self) -> None:
        """Note that a call may be given up without an answer."""
        ...

    def add(self, node: Node, at: ast.expr | ast.stmt | ast.comprehension, suffix: str = "") -> str:
        """Give a node its id, and keep it; returns the id."""
        ...

    def undo_of(self, call: ast.Call, node_id: str) -> str:
        """The node of the compensation of an activity; empty where it has none."""
        ...

    def function_called(self, call: ast.Call) -> Function | None: ...
    def inline(self, call: ast.Call, function: Function, *, awaited: bool) -> tuple[Block, ...]: ...
    def detached(self, function: ast.Lambda) -> tuple[Block, ...]: ...


Blocks = tuple[Block, ...]


def calls_in(expression: ast.AST | None, around: Surroundings, *, awaited: bool = False) -> Blocks:
    """The blocks of an expression; `awaited`: its value is awaited at once."""
    match expression:
        case None:
            return ()
        case ast.Await(value=value):
            return calls_in(value, around, awaited=True)
        case ast.Call():
            return _call(expression, around, awaited=awaited)
        case ast.IfExp():
            return _conditional(expression, around, awaited=awaited)
        case ast.BoolOp():
            return _short_circuit(expression, around, awaited=awaited)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return _comprehension(expression, around)
        case ast.Lambda():
            return around.detached(expression)
        case ast.NamedExpr(value=value):
            return calls_in(value, around, awaited=awaited)
        case _:
            return _all(ast.iter_child_nodes(expression), around)


def _all(expressions: Iterable[ast.AST], around: Surroundings) -> Blocks:
    return tuple(block for expression in expressions for block in calls_in(expression, around))


# -- calls -------------------------------------------------------------------------------------------------------------


def _call(call: ast.Call, around: Surroundings, *, awaited: bool) -> Blocks:
    name = around.place.names.canonical(call.func)
    if name in ABANDONING or _method(call) == "cancel":
        around.abandon()
    if name == "asyncio.gather":
        return _gather(call, around, joined=awaited)
    if name in PASSING_ON:
        return (*calls_in(_first(call), around, awaited=awaited), *_all(_rest(call), around))
    if name.rpartition(".")[2] in BEGINNING or _method(call) in BEGINNING:
        return (*begun(calls_in(_first(call), around, awaited=True), call, around), *_all(_rest(call), around))
    node = node_of(call, around.place, awaited=awaited)
    function = around.function_called(call)
    if function is not None:
        return (*_parts(call, around), *around.inline(call, function, awaited=awaited))
    if node is None:
        return _parts(call, around)
    parts = _parts(call, around)
    node_id = around.add(node, call)
    step = Step(node_id, around.undo_of(call, node_id))
    return (*parts, step) if awaited else (*parts, *begun((step,), call, around))


def _parts(call: ast.Call, around: Surroundings) -> Blocks:
    return _all((call.func, *call.args, *(keyword.value for keyword in call.keywords)), around)


def _first(call: ast.Call) -> ast.expr | None:
    return (
        call.args[0] if call.args else next((k.value for k in call.keywords if k.arg in ("coro", "fut", "arg")), None)
    )


def _rest(call: ast.Call) -> list[ast.expr]:
    first = _first(call)
    return [given for given in (*call.args, *(k.value for k in call.keywords)) if given is not first]


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def begun(blocks: Blocks, at: ast.expr, around: Surroundings) -> Blocks:
    """What runs on by itself from here."""
    if not blocks:
        return ()
    node_id = around.add(Node(id="", kind=NodeKind.PARALLEL, label="begins"), at, "begins")
    return (Parallel(node_id, (Branch("", Run(blocks)),), joined=False),)


# -- at once -----------------------------------------------------------------------------------------------------------


def _gather(call: ast.Call, around: Surroundings, *, joined: bool) -> Blocks:
    branches: list[Branch] = []
    before: list[Block] = []
    many = False
    for argument in _unpacked(call.args):
        if isinstance(argument, ast.Starred):
            if isinstance(argument.value, Comprehension):
                first, label, body = _clauses(argument.value, around, awaited=True)
                before += first
                many = many or bool(body)
                branches += [Branch(label, Run(body))] if body else []
            else:
                before += calls_in(argument.value, around)
        elif blocks := calls_in(argument, around, awaited=True):
            branches.append(Branch("", Run(blocks)))
    if not branches:
        return tuple(before)
    node_id = around.add(Node(id="", kind=NodeKind.PARALLEL, label="gather" if joined else "begins"), call, "parallel")
    return (*before, Parallel(node_id, tuple(branches), many=many, joined=joined))


def _unpacked(arguments: list[ast.expr]) -> Iterable[ast.expr]:
    """`*[a(), b()]` is `a(), b()`."""
    for argument in arguments:
        if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.List | ast.Tuple):
            yield from _unpacked(argument.value.elts)
        else:
            yield argument


# -- comprehensions ----------------------------------------------------------------------------------------------------


def _comprehension(expression: Comprehension, around: Surroundings) -> Blocks:
    """Of awaited calls it is a loop; of calls that are not awaited in it, they all begin here."""
    first, label, body = _clauses(expression, around, awaited=False)
    if not body:
        return first
    if any(isinstance(block, Parallel) and not block.joined for block in body):
        node_id = around.add(Node(id="", kind=NodeKind.PARALLEL, label="begins"), expression, "parallel")
        inner = tuple(part for block in body for part in _without_beginning(block))
        return (*first, Parallel(node_id, (Branch(label, Run(inner)),), many=True, joined=False))
    node_id = around.add(Node(id="", kind=NodeKind.LOOP, label=label), expression, "loop")
    return (*first, Loop(node_id, Run(body)))


def _without_beginning(block: Block) -> Blocks:
    if isinstance(block, Parallel) and not block.joined and len(block.branches) == 1:
        return (block.branches[0].block,)
    return (block,)


def _clauses(expression: Comprehension, around: Surroundings, *, awaited: bool) -> tuple[Blocks, str, Blocks]:
    """What is evaluated before it, its `for`s as text, and what is evaluated for each element."""
    clauses = expression.generators
    first = calls_in(clauses[0].iter, around)
    inner: list[Block] = []
    for index, clause in enumerate(clauses):
        if index:
            inner += calls_in(clause.iter, around)
        for condition in clause.ifs:
            inner += calls_in(condition, around)
    if isinstance(expression, ast.DictComp):
        inner += (*calls_in(expression.key, around), *calls_in(expression.value, around))
    else:
        inner += calls_in(expression.elt, around, awaited=awaited)
    return first, " ".join(words_of(clause).strip() for clause in clauses), tuple(inner)


# -- decisions ---------------------------------------------------------------------------------------------------------


def _conditional(expression: ast.IfExp, around: Surroundings, *, awaited: bool) -> Blocks:
    before = calls_in(expression.test, around)
    yes = calls_in(expression.body, around, awaited=awaited)
    no = calls_in(expression.orelse, around, awaited=awaited)
    if not yes and not no:
        return before
    node_id = around.add(Node(id="", kind=NodeKind.CHOICE, label=words_of(expression.test)), expression, "choice")
    return (*before, Choice(node_id, (Branch("yes", Run(yes)), Branch("no", Run(no)))))


def _short_circuit(expression: ast.BoolOp, around: Surroundings, *, awaited: bool) -> Blocks:
    """`a and b`: what stands in `b` is evaluated only if `a` is true."""
    goes_on, ends = ("yes", "no") if isinstance(expression.op, ast.And) else ("no", "yes")
    blocks: Blocks = ()
    for index in range(len(expression.values) - 1, -1, -1):
        own = calls_in(expression.values[index], around, awaited=awaited)
        if blocks:
            node = Node(id="", kind=NodeKind.CHOICE, label=words_of(expression.values[index]))
            node_id = around.add(node, expression.values[index], "choice")
            rest = (Branch(goes_on, Run(blocks)), Branch(ends, Run()))
            blocks = (*own, Choice(node_id, rest if goes_on == "yes" else rest[::-1]))
        else:
            blocks = own
    return blocks
