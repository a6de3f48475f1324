"""What a workflow may do, as values: steps and decisions (nodes), what follows what (edges), how they nest (blocks).

A node is known by its place in the source, the *call site* `line:column` of what it stands for; inside a helper
function the sites of the calls that lead there come first, `12:4/40:10`. So the same activity called at two places is
two nodes, and a diagram of the same source has the same ids again. Blocks hold node ids only: what is laid over a
graph later (`edda.visualizer.execution`) replaces nodes, never the structure.

Must not know: syntax trees, pictures, histories.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class NodeKind(StrEnum):
    """What a node stands for."""

    START = "start"
    END = "end"

    ACTIVITY = "activity"
    EVENT_WAIT = "event wait"
    TIMER = "timer"
    CHILD = "child workflow"
    CHILD_RESULT = "result of a child"
    EVENT_SEND = "event sent"
    COMPENSATION = "compensation"
    """What undoes an activity, beside it. It runs only if the workflow fails or is cancelled."""
    REGISTRATION = "compensation registered"

    CALL = "call"
    """Of a function that is drawn elsewhere, or not at all: a recursion, a helper that is too deep."""
    CHOICE = "choice"
    LOOP = "loop"
    PARALLEL = "parallel"
    TRY = "try"

    RETURN = "return"
    RAISE = "raise"
    BREAK = "break"
    CONTINUE = "continue"


DURABLE: frozenset[NodeKind] = frozenset(
    {
        NodeKind.ACTIVITY,
        NodeKind.EVENT_WAIT,
        NodeKind.TIMER,
        NodeKind.CHILD,
        NodeKind.CHILD_RESULT,
        NodeKind.EVENT_SEND,
        NodeKind.REGISTRATION,
    }
)
"""The kinds that leave rows in history when the body comes by."""


class State(StrEnum):
    """What an execution did with a node. `PERHAPS` is said where history fits several places and none for certain."""

    NONE = "none"
    EXECUTED = "executed"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    FAILED = "failed"
    COMPENSATED = "compensated"
    SKIPPED = "skipped"
    PERHAPS = "perhaps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A step, a decision or an end of the workflow function."""

    id: str
    kind: NodeKind
    label: str
    """What it is, for people: one line of source or prose, of any length."""
    name: str = ""
    """What history calls it (an activity, event type or workflow). Empty where only the run can tell."""
    pattern: str = ""
    """A regular expression for that name where the source says a part of it, as f-strings do."""
    details: tuple[str, ...] = ()
    """More about it, a line each: `times out after 60 s`."""
    line: int = 0
    column: int = 0
    end_line: int = 0
    reachable: bool = True
    certain: bool = True
    """False where the source does not show that it is a step, such as a function that is defined elsewhere."""
    optional: bool = False
    """It may leave no row in history, as `asyncio.sleep(0)` does."""
    call_pattern: str = ""
    """A regular expression for the id of its calls, where the source chooses one (`activity_id=`, `timer_id=`)."""
    literals: tuple[tuple[int | str, str | int | bool | None], ...] = ()
    """Arguments that the source says literally, by position (0 is the first after the context) or by name."""

    state: State = State.NONE
    count: int = 0
    """How often it was executed for certain."""
    call_ids: tuple[str, ...] = ()
    """The calls in history that are for certain calls of this node."""


class EdgeKind(StrEnum):
    NEXT = "next"
    BRANCH = "branch"
    BACK = "back"
    """To the head of a loop."""
    EXCEPTION = "exception"
    COMPENSATION = "compensation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What may follow what."""

    source: str
    target: str
    kind: EdgeKind = EdgeKind.NEXT
    label: str = ""
    travelled: bool = False
    """An execution went this way, for certain."""


# -- how nodes nest ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One after the other."""

    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One node; with the compensation of its activity beside it."""

    node: str
    undo: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """One way out of a choice, a part of what runs in parallel, a handler of errors."""

    label: str
    block: Block


@dataclass(frozen=True, slots=True)
class Choice:
    """Exactly one of its branches."""

    node: str
    branches: tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """The body any number of times, then `otherwise` unless it was left by `break`."""

    node: str
    body: Block
    otherwise: Block = Run()
    endless: bool = False
    """Only `break`, `return` or an error leave it."""


@dataclass(frozen=True, slots=True)
class Parallel:
    """All branches at once, in any order of their ends."""

    node: str
    branches: tuple[Branch, ...]
    many: bool = False
    """Each branch any number of times, as in a comprehension."""
    joined: bool = True
    """What follows waits for all of them; False where they only begin here, as with `asyncio.create_task`."""


@dataclass(frozen=True, slots=True)
class Try:
    """The body; a handler where something in it fails, else `otherwise`; `lastly` in every case."""

    node: str
    body: Block
    handlers: tuple[Branch, ...] = ()
    otherwise: Block = Run()
    lastly: Block = Run()


@dataclass(frozen=True, slots=True)
class Frame:
    """A part with a title: a `with` block, the body of a helper function."""

    label: str
    block: Block
    concurrent: bool = False
    """What is begun inside runs at once: `asyncio.TaskGroup`."""
    function: bool = False
    """A `return` inside leaves the frame, not the workflow."""
    detached: bool = False
    """Nobody knows when it runs: a lambda, a nested function that is handed on."""


Block = Run | Step | Choice | Loop | Parallel | Try | Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The diagram of one workflow, bare or with an execution laid over it."""

    name: str
    """Of the workflow."""
    title: str = ""
    """First line of its docstring."""
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    block: Block
    abandons: bool = False
    """It may give up a call without an answer: a timeout of asyncio's, a task that is cancelled."""
    notes: tuple[str, ...] = ()
    """What a reader should know about this picture, a sentence each."""

    def node(self, node_id: str) -> Node:
        """Raises KeyError."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise KeyError(node_id)

    def by_id(self) -> dict[str, Node]:
        return {node.id: node for node in self.nodes}


def parts_of(block: Block) -> tuple[Block, ...]:
    """What a block directly holds, in the order of the source."""
    match block:
        case Run():
            return block.blocks
        case Step():
            return ()
        case Choice() | Parallel():
            return tuple(branch.block for branch in block.branches)
        case Loop():
            return (block.body, block.otherwise)
        case Try():
            return (block.body, *(handler.block for handler in block.handlers), block.otherwise, block.lastly)
        case Frame():
            return (block.block,)


def nodes_in(block: Block) -> Iterator[str]:
    """Ids of the nodes in a block, in the order of the source; compensations not among them."""
    if not isinstance(block, Run | Frame):
        yield block.node
    for part in parts_of(block):
        yield from nodes_in(part)


def blocks_in(block: Block) -> Iterator[Block]:
    """A block and all that it holds."""
    yield block
    for part in parts_of(block):
        yield from blocks_in(part)
