"""The body of a workflow function as blocks: statements, and the helper functions that they call.

A helper is read again at each place that calls it, because each is a place of its own in an execution; a recursion, and
what is nested too deep to be looked at, is one node instead.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edda.visualizer.calls import Place, words_of
from edda.visualizer.expressions import Blocks, calls_in
from edda.visualizer.graph import Block, Branch, Choice, Frame, Loop, Node, NodeKind, Parallel, Run, Step, Try, nodes_in
from edda.visualizer.names import Function, Names, declaration_of

DEPTH_MAX: Final = 6
"""Helpers that call helpers: deeper ones are one node each."""
NODES_MAX: Final = 600
"""Beyond it helpers are no longer opened: nobody looks at such a picture, and it must not take for ever."""

NESTED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(slots=True)
class Reader:
    """Reads one workflow function and whatever it calls; the nodes gather here."""

    names: Names
    nodes: list[Node] = field(default_factory=list[Node])
    taken: set[str] = field(default_factory=set[str])
    abandons: bool = False
    """A call may be given up without an answer somewhere."""

    def read_workflow(self, function: Function, name: str) -> Block:
        scope = _Scope.of(self, function, contexts=_first_parameter(function))
        start = Node(id="start", kind=NodeKind.START, label=name, line=function.lineno, column=function.col_offset)
        end = Node(id="end", kind=NodeKind.END, label="end")
        self.nodes.append(start)
        block = scope.statements(function.body)
        self.nodes.append(end)
        return Run((Step("start"), Frame("", block, function=True), Step("end")))

    def keep(self, node: Node, site: str) -> str:
        """Ids are unique: two calls may begin at one character, as in `f(ctx)(ctx)`."""
        unique, number = site, 1
        while unique in self.taken:
            number += 1
            unique = f"{site}'{number}"
        self.taken.add(unique)
        self.nodes.append(replace(node, id=unique))
        return unique


def _first_parameter(function: Function) -> frozenset[str]:
    """The context; after `self` in a method."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    return frozenset(names[:1])


@dataclass(slots=True)
class _Scope:
    """One function while it is read. Implements `Surroundings`."""

    reader: Reader
    function: Function | ast.Lambda
    place: Place
    path: str
    """The call sites that lead here."""
    open: tuple[ast.AST, ...]
    """The functions that are being read, to see a recursion."""
    nested: dict[str, Function]
    """Functions that are defined in this one or around it, and called by name."""
    owner: str
    awaited: bool = True
    """Whether the result is awaited, if this is no `async def`."""

    @classmethod
    def of(
        cls,
        reader: Reader,
        function: Function,
        *,
        contexts: frozenset[str],
        path: str = "",
        open: tuple[ast.AST, ...] = (),
        around: dict[str, Function] | None = None,
        awaited: bool = True,
    ) -> _Scope:
        nested = {**(around or {}), **_called_functions(function, reader.names)}
        return cls(
            reader=reader,
            function=function,
            place=Place(names=reader.names, contexts=contexts, local=_bound(function)),
            path=path,
            open=(*open, function),
            nested=nested,
            owner=reader.names.owner.get(id(function), ""),
            awaited=awaited,
        )

    # -- what expressions need -----------------------------------------------------------------------------------------

    def abandon(self) -> None:
        self.reader.abandons = True

    def add(self, node: Node, at: ast.AST, suffix: str = "") -> str:
        line, column = getattr(at, "lineno", 0), getattr(at, "col_offset", 0)
        site = f"{self.path}{line}:{column}" + (f":{suffix}" if suffix else "")
        placed = replace(node, line=line, column=column, end_line=getattr(at, "end_lineno", None) or line)
        return self.reader.keep(placed, site)

    def undo_of(self, call: ast.Call, node_id: str) -> str:
        declared = self.place.names.declared.get(ast.unparse(call.func))
        if declared is None or declared.sort != "activity" or not declared.undo:
            return ""
        undo = Node(id="", kind=NodeKind.COMPENSATION, label=declared.undo, name=declared.undo, line=call.lineno)
        return self.reader.keep(replace(undo, column=call.col_offset), f"{node_id}:undo")

    def function_called(self, call: ast.Call) -> Function | None:
        """The helper whose body is known."""
        names = self.place.names
        match call.func:
            case ast.Name(id=name):
                function = self.nested.get(name)
                if function is None and name not in self.place.local:
                    function = names.functions.get(name) or _workflow_function(names, name)
                return function
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                return names.functions.get(f"{self.owner}.{name}")
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                return names.functions.get(f"{owner}.{name}")
            case _:
                return None

    def inline(self, call: ast.Call, function: Function, *, awaited: bool) -> Blocks:
        if function in self.open or len(self.open) > DEPTH_MAX or len(self.reader.nodes) > NODES_MAX:
            return self._closed(call, function)
        inner = _Scope.of(
            self.reader,
            function,
            contexts=_contexts_inside(call, function, self.place.contexts, known=function.name in self.nested),
            path=f"{self.path}{call.lineno}:{call.col_offset}/",
            open=self.open,
            around=self.nested,
            awaited=awaited,
        )
        body = inner.statements(function.body)
        if not has_steps(body, self.reader):
            return ()
        frame = Frame(function.name, body, function=True)
        if awaited or isinstance(function, ast.FunctionDef):
            return (frame,)
        node_id = self.add(Node(id="", kind=NodeKind.PARALLEL, label="begins"), call, "begins")
        return (Parallel(node_id, (Branch("", frame),), joined=False),)

    def _closed(self, call: ast.Call, function: Function) -> Blocks:
        why = "calls itself" if function in self.open else "not shown: nested too deep"
        node = Node(id="", kind=NodeKind.CALL, label=function.name, details=(why,), certain=False)
        return (Step(self.add(node, call)),)

    def detached(self, function: ast.Lambda) -> Blocks:
        """A lambda may be called now, later, often or never."""
        blocks = calls_in(function.body, self)
        return (Frame("lambda", Run(blocks), detached=True),) if blocks else ()

    # -- statements ----------------------------------------------------------------------------------------------------

    def statements(self, statements: Sequence[ast.stmt]) -> Run:
        blocks: list[Block] = []
        for statement in statements:
            for block in self._statement(statement):
                _append(blocks, block)
        return Run(tuple(blocks))

    def _statement(self, statement: ast.stmt) -> Blocks:
        match statement:
            case ast.If():
                return self._if(statement)
            case ast.Match():
                return self._match(statement)
            case ast.For() | ast.AsyncFor():
                return self._for(statement)
            case ast.While():
                return self._while(statement)
            case ast.Try() | ast.TryStar():
                return self._try(statement)
            case ast.With() | ast.AsyncWith():
                return self._with(statement)
            case ast.Return(value=value):
                awaited = isinstance(self.function, ast.FunctionDef) and self.awaited
                return (*calls_in(value, self, awaited=awaited), self._exit(NodeKind.RETURN, statement))
            case ast.Raise(exc=error):
                return (*calls_in(error, self), self._exit(NodeKind.RAISE, statement))
            case ast.Break():
                return (self._exit(NodeKind.BREAK, statement),)
            case ast.Continue():
                return (self._exit(NodeKind.CONTINUE, statement),)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return self._definition(statement)
            case ast.ClassDef():
                return ()
            case ast.Assert(test=test):
                return calls_in(test, self)
            case _:
                return tuple(block for child in _in_order(statement) for block in calls_in(child, self))

    def _exit(self, kind: NodeKind, statement: ast.stmt) -> Step:
        return Step(self.add(Node(id="", kind=kind, label=words_of(statement)), statement, kind.value))

    def _definition(self, function: Function) -> Blocks:
        """One that is only called by its name is drawn where it is called."""
        if function.name in self.nested or declaration_of(self.place.names, function) is not None:
            return ()
        scope = _Scope.of(
            self.reader,
            function,
            contexts=self.place.contexts | _parameters_like_contexts(function),
            path=self.path,
            open=self.open,
            around=self.nested,
        )
        block = scope.statements(function.body)
        return (Frame(function.name, block, function=True, detached=True),) if has_steps(block, self.reader) else ()

    # -- decisions -----------------------------------------------------------------------------------------------------

    def _if(self, statement: ast.If) -> Blocks:
        """`elif`s are further branches of one choice, unless their conditions wait for something themselves."""
        before = calls_in(statement.test, self)
        branches = [(words_of(statement.test), self.statements(statement.body))]
        rest = statement.orelse
        while len(rest) == 1 and isinstance(rest[0], ast.If) and not self._waits(rest[0].test):
            branches.append((words_of(rest[0].test), self.statements(rest[0].body)))
            rest = rest[0].orelse
        otherwise = self.statements(rest)
        if not any(has_steps(block, self.reader, exits=True) for _, block in branches) and not has_steps(
            otherwise, self.reader, exits=True
        ):
            return before
        if len(branches) == 1:
            label, named = branches[0][0], [Branch("yes", branches[0][1]), Branch("no", otherwise)]
        else:
            label, named = "if", [*(Branch(text, block) for text, block in branches), Branch("else", otherwise)]
        node_id = self.add(Node(id="", kind=NodeKind.CHOICE, label=label), statement, "choice")
        return (*before, Choice(node_id, tuple(named)))

    def _waits(self, expression: ast.expr) -> bool:
        """Whether an expression makes durable calls; looks, and leaves nothing behind."""
        reader = self.reader
        count, taken = len(reader.nodes), set(reader.taken)
        found = bool(calls_in(expression, self))
        del reader.nodes[count:]
        reader.taken = taken
        return found

    def _match(self, statement: ast.Match) -> Blocks:
        before = (*calls_in(statement.subject, self), *self._guards(statement))
        branches = [Branch(_case_label(case), self.statements(case.body)) for case in statement.cases]
        if not _is_exhaustive(statement):
            branches.append(Branch("no case", Run()))
        if not any(has_steps(branch.block, self.reader, exits=True) for branch in branches):
            return before
        node = Node(id="", kind=NodeKind.CHOICE, label=f"match {words_of(statement.subject)}")
        return (*before, Choice(self.add(node, statement, "choice"), tuple(branches)))

    def _guards(self, statement: ast.Match) -> Blocks:
        """A guard that waits is evaluated before it is known which case it will be."""
        found: list[Block] = []
        for case in statement.cases:
            if case.guard is not None and (steps := calls_in(case.guard, self)):
                label = f"case {ast.unparse(case.pattern)}"
                choice = self.add(Node(id="", kind=NodeKind.CHOICE, label=label), case.pattern, "choice")
                found.append(Choice(choice, (Branch("yes", Run(steps)), Branch("no", Run()))))
        return tuple(found)

    # -- loops ---------------------------------------------------------------------------------------------------------

    def _for(self, statement: ast.For | ast.AsyncFor) -> Blocks:
        before = calls_in(statement.iter, self)
        body, otherwise = self.statements(statement.body), self.statements(statement.orelse)
        if not has_steps(body, self.reader, exits=True, leaving_only=True) and not otherwise.blocks:
            return before
        word = "async for" if isinstance(statement, ast.AsyncFor) else "for"
        label = f"{word} {words_of(statement.target)} in {words_of(statement.iter)}"
        node_id = self.add(Node(id="", kind=NodeKind.LOOP, label=label), statement, "loop")
        return (*before, Loop(node_id, body, otherwise))

    def _while(self, statement: ast.While) -> Blocks:
        test = calls_in(statement.test, self)
        body, otherwise = self.statements(statement.body), self.statements(statement.orelse)
        parts = (Run(test), body, otherwise)
        if not any(has_steps(part, self.reader, exits=True, leaving_only=True) for part in parts):
            return ()
        endless = isinstance(statement.test, ast.Constant) and bool(statement.test.value)
        text = words_of(statement.test)
        label = "for ever" if endless else f"while {text}"
        node_id = self.add(Node(id="", kind=NodeKind.LOOP, label=label), statement, "loop")
        if not test:
            return (Loop(node_id, body, otherwise, endless=endless),)
        choice = self.add(Node(id="", kind=NodeKind.CHOICE, label=text), statement.test, "choice")
        leave = self.add(Node(id="", kind=NodeKind.BREAK, label="leaves the loop"), statement.test, "break")
        ways = (Branch("yes", body), Branch("no", Run((*otherwise.blocks, Step(leave)))))
        return (Loop(node_id, Run((*test, Choice(choice, ways))), endless=True),)

    # -- errors, with --------------------------------------------------------------------------------------------------

    def _try(self, statement: ast.Try | ast.TryStar) -> Blocks:
        body = self.statements(statement.body)
        handlers = tuple(self._handler(handler) for handler in statement.handlers)
        otherwise, lastly = self.statements(statement.orelse), self.statements(statement.finalbody)
        parts = (body, *(handler.block for handler in handlers), otherwise, lastly)
        if not any(has_steps(part, self.reader, exits=True) for part in parts):
            return ()
        node_id = self.add(Node(id="", kind=NodeKind.TRY, label="try"), statement, "try")
        return (Try(node_id, body, handlers, otherwise, lastly),)

    def _handler(self, handler: ast.ExceptHandler) -> Branch:
        caught = f"except {ast.unparse(handler.type)}" if handler.type else "except"
        return Branch(caught, self.statements(handler.body))

    def _with(self, statement: ast.With | ast.AsyncWith) -> Blocks:
        before = tuple(block for item in statement.items for block in calls_in(item.context_expr, self))
        body = self.statements(statement.body)
        if not has_steps(body, self.reader):
            return (*before, *body.blocks)
        names = [_called(self.place.names, item.context_expr) for item in statement.items]
        if "asyncio.TaskGroup" in names:
            return (*before, self._task_group(body))
        label = ", ".join(ast.unparse(item.context_expr) for item in statement.items)
        return (*before, Frame(f"with {label}", body))

    def _task_group(self, body: Run) -> Block:
        """Where it only begins tasks, it is the same as `gather`."""
        only = body.blocks[0] if len(body.blocks) == 1 else None
        if not isinstance(only, Parallel) or only.joined or only.many:
            return Frame("TaskGroup: waits for all", body, concurrent=True)
        nodes = self.reader.nodes
        nodes[:] = [replace(node, label="TaskGroup") if node.id == only.node else node for node in nodes]
        return replace(only, joined=True)


# -- what blocks hold --------------------------------------------------------------------------------------------------

_STRUCTURE: Final = frozenset({NodeKind.CHOICE, NodeKind.LOOP, NodeKind.PARALLEL, NodeKind.TRY})
_EXITS: Final = frozenset({NodeKind.RETURN, NodeKind.RAISE, NodeKind.BREAK, NodeKind.CONTINUE})


def has_steps(block: Block, reader: Reader, *, exits: bool = False, leaving_only: bool = False) -> bool:
    """Whether something in it is worth a picture; `exits`: also ways out, `leaving_only`: out of the whole function."""
    kinds = {node.id: node.kind for node in reader.nodes}
    out = _EXITS - {NodeKind.BREAK, NodeKind.CONTINUE} if leaving_only else _EXITS
    wanted = frozenset(NodeKind) - _STRUCTURE - _EXITS | (out if exits else frozenset[NodeKind]())
    return any(kinds[node_id] in wanted for node_id in nodes_in(block))


def _append(blocks: list[Block], block: Block) -> None:
    """Add a block; what begins here together with what began just before is one fork."""
    last = blocks[-1] if blocks else None
    if (
        isinstance(last, Parallel)
        and isinstance(block, Parallel)
        and not (last.joined or block.joined or last.many or block.many)
    ):
        blocks[-1] = Parallel(last.node, (*last.branches, *block.branches), joined=False)
    else:
        blocks.append(block)


def _case_label(case: ast.match_case) -> str:
    return ast.unparse(case.pattern) + (f" if {words_of(case.guard)}" if case.guard else "")


def _is_exhaustive(statement: ast.Match) -> bool:
    return any(
        isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and not case.guard
        for case in statement.cases
    )


# -- names in a function -----------------------------------------------------------------------------------------------


def _called(names: Names, expression: ast.expr) -> str:
    return names.canonical(expression.func) if isinstance(expression, ast.Call) else ""


def _in_order(statement: ast.stmt) -> list[ast.AST]:
    """The value of an assignment is evaluated before its targets."""
    children = list(ast.iter_child_nodes(statement))
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) and statement.value is not None:
        return [statement.value, *(child for child in children if child is not statement.value)]
    return children


def _bound(function: Function | ast.Lambda) -> frozenset[str]:
    """The names that a function binds: its parameters and what it assigns."""
    arguments = function.args
    names = {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    names |= {a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return frozenset(names)


def _called_functions(function: Function, names: Names) -> dict[str, Function]:
    """Functions defined in this one of which every mention is a call: they need no place of their own."""
    defined = {
        node.name: node
        for node in ast.walk(function)
        if isinstance(node, Function) and node is not function and declaration_of(names, node) is None
    }
    called = [id(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
    mentions = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id in defined]
    handed_on = {node.id for node in mentions if id(node) not in called}
    mentioned = {node.id for node in mentions}
    return {name: node for name, node in defined.items() if name in mentioned and name not in handed_on}


def _contexts_inside(call: ast.Call, function: Function, contexts: frozenset[str], *, known: bool) -> frozenset[str]:
    """The names of the context in a helper: the parameters that get it; around a nested function, those around it."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    if isinstance(call.func, ast.Attribute) and names[:1] in (["self"], ["cls"]):
        names = names[1:]
    given = {
        name
        for name, value in zip(names, call.args, strict=False)
        if isinstance(value, ast.Name) and value.id in contexts
    }
    given |= {k.arg for k in call.keywords if k.arg and isinstance(k.value, ast.Name) and k.value.id in contexts}
    return frozenset(given | (contexts - set(names) if known else set()))


def _parameters_like_contexts(function: Function) -> frozenset[str]:
    return frozenset(argument.arg for argument in function.args.args if argument.arg in ("ctx", "context"))


def _workflow_function(names: Names, name: str) -> Function | None:
    """Calling a workflow as a function makes it a part of this one."""
    declared = names.declared.get(name)
    return declared.function if declared is not None and declared.sort == "workflow" else None
