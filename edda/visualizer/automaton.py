"""Every way through a workflow, as a finite automaton that reads the results in a history.

It accepts too much rather than too little: where it says that only one place of the source can have written a row,
that is a fact, because every true way through the function is among its ways. So an error may be raised anywhere
(plain code between two calls raises, too), branches that run at once may end in any order, and what is not awaited
where it begins may end at any later time.

What it does not say: how a condition comes out, how often a loop runs, what a handler catches, apart from the errors
that only a row of history brings (`_RAISED_BY_ROWS`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import product
from math import prod
from typing import Final

from edda.visualizer.graph import (
    DURABLE,
    Block,
    Branch,
    Choice,
    Frame,
    Graph,
    Loop,
    Node,
    NodeKind,
    Parallel,
    Run,
    Step,
    Try,
    blocks_in,
    nodes_in,
)

PRODUCT_MAX: Final = 1500
"""States of branches that run at once, taken together; beyond it any of their steps may come at any time."""

NOBODY: Final = ""
"""In place of a node, for timers of asyncio's own (`asyncio.timeout`), which no step of the diagram sets."""


class Role(Enum):
    """What a row says of a call."""

    DONE = auto()
    FAILED = auto()
    STARTED = auto()
    """The first of the two rows of a child that is started and waited for."""
    PENDING = auto()
    """No row, but known from elsewhere: it is asked for, and has no answer."""


@dataclass(frozen=True, slots=True)
class Move:
    """Reading one row at a node."""

    node: str
    role: Role
    target: int


@dataclass(slots=True)
class Automaton:
    """States are numbers. `marks`: what passing a state means (nodes, and `node#n` for the n-th branch of a choice)."""

    start: int = 0
    end: int = 0
    """The function returned."""
    failed: int = 0
    """An error left the function."""
    free: list[list[int]] = field(default_factory=list[list[int]])
    """Ways that read nothing."""
    throws: list[list[int]] = field(default_factory=list[list[int]])
    """The same, taken only if plain code raises."""
    moves: list[list[Move]] = field(default_factory=list[list[Move]])
    marks: list[frozenset[str]] = field(default_factory=list[frozenset[str]])
    late: set[str] = field(default_factory=set[str])
    """Nodes that may end at any time once they have begun."""
    vague: set[str] = field(default_factory=set[str])
    """Nodes of parts whose order is not followed: only their own rows say anything of them."""

    def state(self, *marks: str) -> int:
        self.free.append([])
        self.throws.append([])
        self.moves.append([])
        self.marks.append(frozenset(marks))
        return len(self.free) - 1


def automaton_of(graph: Graph) -> Automaton:
    """The automaton of a workflow."""
    automaton = Automaton()
    builder = _Builder(graph.by_id(), automaton, careful=_is_careful(graph))
    automaton.start = automaton.state()
    automaton.failed = automaton.state()
    automaton.end = builder.build(graph.block, automaton.start, _Exits(error=automaton.failed))
    if graph.abandons:
        automaton.late.update(node.id for node in graph.nodes if node.kind in DURABLE)
    for state in range(len(automaton.free)):
        builder.stay(state, (builder.nodes[node] for node in sorted(automaton.late)))
        if graph.abandons:
            automaton.moves[state].append(Move(NOBODY, Role.DONE, state))
    return automaton


@dataclass(slots=True)
class _Exits:
    """Where ways out of the enclosing blocks lead."""

    error: int
    """Where any error goes."""
    special: tuple[int, ...] = ()
    """Handlers of errors that only rows of history bring."""
    returned: int | None = None
    left: int | None = None
    head: int | None = None


@dataclass(slots=True)
class _Builder:
    nodes: Mapping[str, Node]
    to: Automaton
    careful: bool
    """Believe that the errors of `_RAISED_BY_ROWS` come from rows."""

    def build(self, block: Block, at: int, exits: _Exits) -> int:
        """Add a block that is entered at a state; returns the state after it."""
        match block:
            case Run():
                for part in block.blocks:
                    at = self.build(part, at, exits)
                return at
            case Step():
                return self._step(self.nodes[block.node], at, exits)
            case Choice():
                return self._choice(block, at, exits)
            case Loop():
                return self._loop(block, at, exits)
            case Parallel():
                return self._parallel(block, at, exits) if block.joined else self._begins(block, at, exits)
            case Try():
                return self._try(block, at, exits)
            case Frame():
                return self._frame(block, at, exits)

    def _state(self, exits: _Exits, *marks: str) -> int:
        state = self.to.state(*marks)
        self.to.throws[state].append(exits.error)
        return state

    def _free(self, source: int, target: int | None) -> None:
        if target is not None:
            self.to.free[source].append(target)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _step(self, node: Node, at: int, exits: _Exits) -> int:
        match node.kind:
            case NodeKind.RETURN:
                self._free(self._marked(at, node, exits), exits.returned)
            case NodeKind.BREAK:
                self._free(self._marked(at, node, exits), exits.left)
            case NodeKind.CONTINUE:
                self._free(self._marked(at, node, exits), exits.head)
            case NodeKind.RAISE:
                self._raise(self._marked(at, node, exits), exits)
            case NodeKind.CALL:
                return self._anything(node, at, exits)
            case NodeKind.CHILD:
                return self._child(node, at, exits)
            case kind if kind in DURABLE:
                return self._durable(node, at, exits)
            case _:
                return self._marked(at, node, exits)
        return self._state(exits)  # nothing leads here

    def _marked(self, at: int, node: Node, exits: _Exits) -> int:
        state = self._state(exits, node.id)
        self._free(at, state)
        return state

    def _durable(self, node: Node, at: int, exits: _Exits) -> int:
        after = self._state(exits, node.id)
        self.to.moves[at] += (
            Move(node.id, Role.DONE, after),
            Move(node.id, Role.FAILED, self._failed(node, exits)),
            Move(node.id, Role.PENDING, self.to.state(node.id)),
        )
        if node.optional:
            self._free(at, after)
        return after

    def _raise(self, source: int, exits: _Exits) -> None:
        """An error that may be of any type."""
        self.to.free[source] += (exits.error, *exits.special)

    def _failed(self, node: Node, exits: _Exits) -> int:
        """Where the error of a step goes."""
        state = self.to.state(node.id)
        self._raise(state, exits)
        return state

    def _child(self, node: Node, at: int, exits: _Exits) -> int:
        """Started, and waited for where the source says so."""
        started = self._state(exits, node.id)
        self.to.moves[at] += (
            Move(node.id, Role.STARTED, started),
            Move(node.id, Role.PENDING, self.to.state(node.id)),
        )
        return started if "started" in node.details else self._durable(node, started, exits)

    def _anything(self, node: Node, at: int, exits: _Exits) -> int:
        """A function that is not drawn: its steps may be any."""
        inside = self._marked(at, node, exits)
        self.stay(inside, (node,))
        after = self._state(exits)
        self._free(inside, after)
        return after

    def stay(self, state: int, nodes: Iterable[Node]) -> None:
        """Any of these, any number of times, without going on."""
        for node in nodes:
            self.to.moves[state] += (Move(node.id, role, state) for role in Role)

    # -- decisions, loops ----------------------------------------------------------------------------------------------

    def _choice(self, choice: Choice, at: int, exits: _Exits) -> int:
        head = self._marked(at, self.nodes[choice.node], exits)
        after = self._state(exits)
        for index, branch in enumerate(choice.branches):
            self._free(self._branch(f"{choice.node}#{index}", branch, head, exits), after)
        return after

    def _branch(self, mark: str, branch: Branch, at: int, exits: _Exits) -> int:
        entry = self._state(exits, mark)
        self._free(at, entry)
        return self.build(branch.block, entry, exits)

    def _loop(self, loop: Loop, at: int, exits: _Exits) -> int:
        head = self._marked(at, self.nodes[loop.node], exits)
        after = self._state(exits)
        inner = _inner(exits, left=after, head=head)
        self._free(self._branch(f"{loop.node}#0", Branch("", loop.body), head, inner), head)
        if not loop.endless:
            self._free(self.build(loop.otherwise, head, exits), after)
        return after

    # -- errors, frames ------------------------------------------------------------------------------------------------

    def _try(self, block: Try, at: int, exits: _Exits) -> int:
        head = self._marked(at, self.nodes[block.node], exits)
        after = self._state(exits)
        through = self._through_finally(block, exits)
        caught = self.to.state()
        inner = _inner(through, error=caught)
        self._free(caught, through.error)
        for index, handler in enumerate(block.handlers):
            entry = self._state(through, f"{block.node}#{index}")
            if self.careful and _raised_by_rows(handler.label):
                inner.special += (entry,)
            else:
                self._free(caught, entry)
            self._free(self.build(handler.block, entry, through), after)
        begun = self._state(inner)  # an error before the first step of the body is caught, too
        self._free(head, begun)
        done = self.build(block.body, begun, inner)
        self._free(self.build(block.otherwise, done, through), after)
        return self.build(block.lastly, after, exits)

    def _through_finally(self, block: Try, exits: _Exits) -> _Exits:
        """Whatever leaves the block goes through `finally` first, which is built once for each way out."""
        if not any(nodes_in(block.lastly)):
            return _inner(exits)

        def through(target: int | None) -> int | None:
            if target is None:
                return None
            entry = self.to.state()
            self._free(self.build(block.lastly, entry, exits), target)
            return entry

        error = through(exits.error)
        assert error is not None
        return _Exits(
            error=error,
            special=tuple(entry for one in exits.special if (entry := through(one)) is not None),
            returned=through(exits.returned),
            left=through(exits.left),
            head=through(exits.head),
        )

    def _frame(self, frame: Frame, at: int, exits: _Exits) -> int:
        if frame.detached:
            self._runs_on(frame.block)
            return at
        if frame.concurrent:
            return self._any_order(at, frame.block, exits)
        if not frame.function:
            return self.build(frame.block, at, exits)
        after = self._state(exits)
        inner = _inner(exits, returned=after)
        inner.left = inner.head = None
        self._free(self.build(frame.block, at, inner), after)
        return after

    # -- at once -------------------------------------------------------------------------------------------------------

    def _begins(self, parallel: Parallel, at: int, exits: _Exits) -> int:
        for branch in parallel.branches:
            self._runs_on(branch.block)
        return self._marked(at, self.nodes[parallel.node], exits)

    def _parallel(self, parallel: Parallel, at: int, exits: _Exits) -> int:
        head = self._marked(at, self.nodes[parallel.node], exits)
        parts = [] if parallel.many else [_part(self.nodes, branch.block) for branch in parallel.branches]
        if parts and prod(len(part.free) for part in parts) <= PRODUCT_MAX:
            return self._shuffled(parts, head, exits)
        after = self._state(exits)
        for branch in parallel.branches:
            self._free(self._any_order(head, branch.block, exits), after)
        everything = Run(tuple(branch.block for branch in parallel.branches))
        self._free(self._any_order(head, everything, exits), after)
        return after

    def _runs_on(self, block: Block) -> None:
        self.to.vague.update(nodes_in(block))
        self.to.late.update(node for node in nodes_in(block) if self.nodes[node].kind in DURABLE)

    def _any_order(self, at: int, block: Block, exits: _Exits) -> int:
        inside = self._state(exits)
        self._free(at, inside)
        self.to.vague.update(nodes_in(block))
        self.stay(inside, (self.nodes[node] for node in nodes_in(block) if self.nodes[node].kind in DURABLE))
        self._raise(inside, exits)
        after = self._state(exits)
        self._free(inside, after)
        return after

    def _shuffled(self, parts: list[Automaton], at: int, exits: _Exits) -> int:
        """Several automata at once: a state for each combination of theirs. One that failed may have been waited for
        like the others (`return_exceptions=True`), or have ended them all."""
        combined = {states: self.to.state() for states in product(*(range(len(part.free)) for part in parts))}
        for states, state in combined.items():
            self.to.marks[state] = frozenset[str]().union(
                *(part.marks[one] for part, one in zip(parts, states, strict=True))
            )
            self.to.throws[state].append(exits.error)
            for index, (part, one) in enumerate(zip(parts, states, strict=True)):
                others = [combined[*states[:index], other, *states[index + 1 :]] for other in range(len(part.free))]
                self.to.free[state] += (others[other] for other in part.free[one])
                if one != part.end:  # what has ended raises no more
                    self.to.throws[state] += (others[other] for other in part.throws[one])
                self.to.moves[state] += (Move(move.node, move.role, others[move.target]) for move in part.moves[one])
                if one == part.failed:
                    self._raise(state, exits)
                    self.to.free[state].append(others[part.end])
        self._free(at, combined[tuple(part.start for part in parts)])
        self.to.late.update(*(part.late for part in parts))
        self.to.vague.update(*(part.vague for part in parts))
        if exits.error != self.to.failed:  # the others of a failed group run on while the error is handled
            self.to.late.update(move.node for part in parts for moves in part.moves for move in moves)
        return combined[tuple(part.end for part in parts)]


def _part(nodes: Mapping[str, Node], block: Block) -> Automaton:
    """The automaton of one branch by itself."""
    part = Automaton()
    part.start, part.failed = part.state(), part.state()
    part.end = _Builder(nodes, part, careful=False).build(block, part.start, _Exits(error=part.failed))
    return part


def _inner(
    exits: _Exits,
    *,
    error: int | None = None,
    returned: int | None = None,
    left: int | None = None,
    head: int | None = None,
) -> _Exits:
    """The exits of a block inside, where some lead elsewhere."""
    return _Exits(
        error=exits.error if error is None else error,
        special=exits.special,
        returned=exits.returned if returned is None else returned,
        left=exits.left if left is None else left,
        head=exits.head if head is None else head,
    )


_RAISED_BY_ROWS: Final = frozenset({"EventTimeoutError", "RetryExhaustedError"})
"""Errors that no plain code raises by itself: a row that says that something failed comes before them."""


def _raised_by_rows(label: str) -> bool:
    """For a handler that catches one of these only."""
    return label.removeprefix("except").strip().rpartition(".")[2] in _RAISED_BY_ROWS


def _is_careful(graph: Graph) -> bool:
    """Every error of a call comes at once, at the call: nothing is awaited elsewhere, and all functions are drawn."""
    if any(node.kind is NodeKind.CALL for node in graph.nodes):
        return False
    blocks = list(blocks_in(graph.block))
    return all(block.joined for block in blocks if isinstance(block, Parallel)) and not any(
        block.detached for block in blocks if isinstance(block, Frame)
    )
