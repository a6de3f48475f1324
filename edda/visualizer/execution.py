"""An execution laid over a graph, by call site: what was executed, what waits, what failed, what was undone.

History names calls (`charge:1`), not the places that made them. So the whole history is read by an automaton of all
ways through the function (`edda.visualizer.automaton`), and a row belongs to a place where every way that fits puts
it there.

*Exact*, for the source that the graph was made of: every state but `PERHAPS` and, in part, `RUNNING`; counts; the ids
of calls; the ways that were taken.
*Said to be open*: where several places fit a row, such as one activity in both branches of an `if`, with arguments that
the source does not say literally, each is `PERHAPS`.
*A guess*, in one point: a function that the text calls with the context and does not define is taken for an activity as
long as that explains the rows; give the text of the whole module rather than that of one function.
`RUNNING` is what comes next if the code between raises nothing: the database does not say which calls are under way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from edda.core.commit import EventWait
from edda.core.history import COMPLETIONS, TERMINALS, HistoryEvent, Kind
from edda.core.journal import ANSWERS, CallKind
from edda.core.lifecycle import ENDED, SET_ASIDE, Status
from edda.visualizer.automaton import NOBODY, Automaton, Move, Role, automaton_of
from edda.visualizer.graph import (
    DURABLE,
    Choice,
    Edge,
    EdgeKind,
    Graph,
    Loop,
    Node,
    NodeKind,
    State,
    Try,
    blocks_in,
)
from edda.visualizer.matching import Match, match

ROWS_MAX: Final = 5_000
"""Of longer histories only this much is laid over the graph: a picture is asked for by somebody who waits."""

LOOP_TIMER: Final = "timer"
"""What history calls a timer of `asyncio.sleep` and `asyncio.timeout`."""

_DOES_NOT_FIT: Final = (
    "This history does not fit this source: it may be of another version. What is marked ? has the name of a call."
)
_IS_OPEN: Final = "Some rows of the history fit several places: they are marked as open."
_IS_LONG: Final = f"Only the first {ROWS_MAX:,} results of this history are shown."


@dataclass(frozen=True, slots=True)
class Reading:
    """A row of history as the automaton reads it; or a call without an answer, which is known from elsewhere."""

    kind: CallKind
    role: Role
    name: str
    call_id: str
    input: str | None = None


def overlay(
    graph: Graph, history: Sequence[HistoryEvent], *, status: str = "", waits: Iterable[EventWait] = ()
) -> Graph:
    """The graph with the states of one instance.

    `history`: all its rows; `status`: that of the instance (else its history tells as much as it can); `waits`: its
    rows of waits for events, where they are known.
    """
    if not history:
        return graph
    ending = _ending(history, status)
    readings = _readings(history, waits if ending is None else ())
    shown = readings[:ROWS_MAX]
    notes = [_IS_LONG] if len(shown) < len(readings) else []
    matched = _match(graph, shown, ending if shown == readings else None)
    if not matched.explained:
        return _by_name(graph, shown, notes)
    nodes = _states(graph, shown, matched, ending, status)
    nodes = _with_compensations(nodes, history)
    notes += [_IS_OPEN] if any(node.state is State.PERHAPS for node in nodes) else []
    edges = tuple(_travelled(graph, edge, nodes, matched) for edge in graph.edges)
    return replace(graph, nodes=nodes, edges=edges, notes=(*graph.notes, *notes))


# -- what history says -------------------------------------------------------------------------------------------------


def _ending(history: Sequence[HistoryEvent], status: str) -> Status | None:
    """How the function ended, as far as that is known; None while it may go on."""
    for event in history:
        if event.kind == Kind.COMPENSATION_STARTED:
            return Status.CANCELLED if event.details().get("cause") == Status.CANCELLED else Status.FAILED
        if event.kind in TERMINALS:
            return _ENDINGS.get(event.kind, Status.CANCELLED)
    return Status.CANCELLED if status in ENDED else None


_ENDINGS: Final[Mapping[str, Status]] = {
    Kind.WORKFLOW_COMPLETED: Status.COMPLETED,
    Kind.WORKFLOW_FAILED: Status.FAILED,
}


_ROLES: Final[Mapping[str, Role]] = {
    Kind.ACTIVITY_COMPLETED: Role.DONE,
    Kind.ACTIVITY_FAILED: Role.FAILED,
    Kind.TIMER_FIRED: Role.DONE,
    Kind.EVENT_RECEIVED: Role.DONE,
    Kind.EVENT_TIMED_OUT: Role.FAILED,
    Kind.EVENT_SENT: Role.DONE,
    Kind.CHILD_STARTED: Role.STARTED,
    Kind.CHILD_COMPLETED: Role.DONE,
    Kind.CHILD_FAILED: Role.FAILED,
    Kind.CHILD_CANCELLED: Role.FAILED,
    Kind.COMPENSATION_REGISTERED: Role.DONE,
}


def _readings(history: Sequence[HistoryEvent], waits: Iterable[EventWait]) -> list[Reading]:
    """The answers in their order, then the calls that are known to wait for one."""
    answered: set[str] = set()
    readings: list[Reading] = []
    for event in history:
        if event.kind in COMPLETIONS:
            answered.add(event.call_id)
            readings.append(Reading(ANSWERS[event.kind], _ROLES[event.kind], event.name, event.call_id, event.input))
    tried = {
        event.call_id: Reading(CallKind.ACTIVITY, Role.PENDING, event.name, event.call_id, event.input)
        for event in history
        if event.kind == Kind.ACTIVITY_ATTEMPT_FAILED
    }
    waiting = {wait.call_id: Reading(CallKind.EVENT_WAIT, Role.PENDING, wait.type, wait.call_id) for wait in waits}
    over = any(event.kind in TERMINALS or event.kind == Kind.COMPENSATION_STARTED for event in history)
    pending = {} if over else {**tried, **waiting}
    return [*readings, *(reading for call_id, reading in pending.items() if call_id not in answered)]


# -- what fits what ----------------------------------------------------------------------------------------------------

_CALLS: Final[Mapping[NodeKind, CallKind]] = {
    NodeKind.ACTIVITY: CallKind.ACTIVITY,
    NodeKind.EVENT_WAIT: CallKind.EVENT_WAIT,
    NodeKind.TIMER: CallKind.TIMER,
    NodeKind.CHILD: CallKind.CHILD_RESULT,
    NodeKind.CHILD_RESULT: CallKind.CHILD_RESULT,
    NodeKind.EVENT_SEND: CallKind.EVENT_SEND,
    NodeKind.REGISTRATION: CallKind.COMPENSATION,
}


def fits(node: Node, role: Role, reading: Reading) -> bool:
    """Whether a call at this node can have got this answer."""
    if reading.role is not role:
        return False
    if node.kind is NodeKind.CALL:
        return True
    if node.kind is NodeKind.CHILD:
        return _fits_child(node, reading)
    return (
        _CALLS.get(node.kind) is reading.kind
        and _has_name(node, reading.name)
        and _has_id(node, reading)
        and _has_literals(node, reading.input)
    )


def _fits_child(node: Node, reading: Reading) -> bool:
    if reading.kind is CallKind.CHILD_START:
        return _has_name(node, reading.name)
    own = re.escape(node.name) if node.name else node.pattern
    return reading.kind is CallKind.CHILD_RESULT and re.fullmatch(rf"{own}:\d+\.result", reading.name) is not None


def _has_name(node: Node, name: str) -> bool:
    return name == node.name if not node.pattern else re.fullmatch(node.pattern, name, re.DOTALL) is not None


def _has_id(node: Node, reading: Reading) -> bool:
    """An id that the source chooses, or else one that is made of the name and a number."""
    if node.call_pattern:
        return re.fullmatch(node.call_pattern, reading.call_id, re.DOTALL) is not None
    return re.fullmatch(rf"{re.escape(reading.name)}:\d+", reading.call_id) is not None


def _has_literals(node: Node, text: str | None) -> bool:
    """What the source says literally is what history has, as far as that is plain."""
    if not node.literals or text is None:
        return True
    given: dict[str, Any] = json.loads(text)
    args, kwargs = given.get("args", []), given.get("kwargs", {})
    for key, literal in node.literals:
        known = args[key] if isinstance(key, int) and key < len(args) else kwargs.get(key, literal)
        if isinstance(known, str | int | bool | None) and known != literal:
            return False
    return True


def _match(graph: Graph, readings: Sequence[Reading], ending: Status | None) -> Match[Reading]:
    """With what is not known for an activity taken for one, as long as that explains the history."""
    matched = _match_with(graph, readings, ending)
    if matched.explained:
        return matched
    names = {reading.name for reading in readings if reading.kind is CallKind.ACTIVITY}
    unknown = {
        node.id: replace(node, kind=NodeKind.CALL)
        for node in graph.nodes
        if node.kind is NodeKind.ACTIVITY and not node.certain and node.name not in names
    }
    opened = replace(graph, nodes=tuple(unknown.get(node.id, node) for node in graph.nodes))
    return _match_with(opened, readings, ending) if unknown else matched


def _match_with(graph: Graph, readings: Sequence[Reading], ending: Status | None) -> Match[Reading]:
    nodes = graph.by_id()
    automaton = automaton_of(graph)
    if not any(node.name == LOOP_TIMER for node in graph.nodes) and not graph.abandons:
        _ignore_timers(automaton)

    def is_possible(node_id: str, role: Role, reading: Reading) -> bool:
        if node_id == NOBODY:
            return reading.kind is CallKind.TIMER and reading.name == LOOP_TIMER and role is reading.role
        return fits(nodes[node_id], role, reading)

    return match(automaton, readings, is_possible, accepts=_accepts(automaton, ending))


def _ignore_timers(automaton: Automaton) -> None:
    """Timers of libraries that the text does not show."""
    for state, moves in enumerate(automaton.moves):
        moves.append(Move(NOBODY, Role.DONE, state))


def _accepts(automaton: Automaton, ending: Status | None) -> Callable[[int], bool]:
    match ending:
        case Status.COMPLETED:
            return lambda state: state == automaton.end
        case Status.FAILED:
            return lambda state: state == automaton.failed
        case _:  # it may be over, and wait for what it left behind
            return lambda state: True


# -- from ways to states -----------------------------------------------------------------------------------------------


def _states(
    graph: Graph, readings: Sequence[Reading], matched: Match[Reading], ending: Status | None, status: str
) -> tuple[Node, ...]:
    certain: dict[str, list[Reading]] = {}
    for reading, nodes in zip(readings, matched.nodes_of, strict=True):
        if len(nodes) == 1:
            certain.setdefault(next(iter(nodes)), []).append(reading)
    open_to: dict[str, set[Role]] = {}
    for reading, nodes in zip(readings, matched.nodes_of, strict=True):
        for node_id in nodes if len(nodes) > 1 else ():
            open_to.setdefault(node_id, set()).add(reading.role)
    following = matched.following if ending is None else frozenset[str]()
    return tuple(
        _with_state(
            node,
            certain.get(node.id, ()),
            open_roles=open_to.get(node.id, set[Role]()),
            is_next=ending is None and status not in SET_ASIDE and _is_next(node, graph, matched, status),
            must=node.id in matched.must,
            may=node.id in matched.may,
            can_come=node.id in following,
        )
        for node in graph.nodes
    )


def _is_next(node: Node, graph: Graph, matched: Match[Reading], status: str) -> bool:
    """An instance that waits for an event waits at the only wait for one that it can have come to; so with timers."""
    kind = None if graph.abandons else _WAITED_FOR.get(status)
    if kind is None:
        return node.id in matched.next
    return [other.id for other in graph.nodes if other.kind is kind and other.id in matched.possible] == [node.id]


_WAITED_FOR: Final[Mapping[str, NodeKind]] = {
    Status.WAITING_FOR_EVENT: NodeKind.EVENT_WAIT,
    Status.WAITING_FOR_TIMER: NodeKind.TIMER,
}


def _with_state(
    node: Node,
    readings: Sequence[Reading],
    *,
    open_roles: set[Role],
    is_next: bool,
    must: bool,
    may: bool,
    can_come: bool,
) -> Node:
    if node.kind is NodeKind.COMPENSATION or not node.reachable:
        return node
    if readings:
        ids = tuple(dict.fromkeys(reading.call_id for reading in readings))
        node = replace(node, state=_state_after(node, readings[-1]), count=_count(node, readings), call_ids=ids)
    if is_next and node.kind in DURABLE and not (readings and readings[-1].role in (Role.PENDING, Role.STARTED)):
        return replace(node, state=State.RUNNING if node.kind in _WORKING else State.WAITING)
    if readings:
        return node
    if open_roles:  # which row is its own is not known, but perhaps that it had one
        return replace(node, state=State.EXECUTED if must and open_roles == {Role.DONE} else State.PERHAPS)
    if must:
        return replace(node, state=State.EXECUTED)
    return node if may or can_come else replace(node, state=State.SKIPPED)


_WORKING: Final = frozenset({NodeKind.ACTIVITY, NodeKind.EVENT_SEND, NodeKind.REGISTRATION, NodeKind.CHILD})


def _state_after(node: Node, reading: Reading) -> State:
    """Of a node whose latest row this is."""
    match reading.role:
        case Role.DONE:
            return State.EXECUTED
        case Role.FAILED:
            return State.FAILED
        case Role.STARTED:
            return State.EXECUTED if "started" in node.details else State.WAITING
        case Role.PENDING:
            return State.RETRYING if reading.kind is CallKind.ACTIVITY else State.WAITING


def _count(node: Node, readings: Sequence[Reading]) -> int:
    only_started = node.kind is NodeKind.CHILD and "started" in node.details
    counted = (Role.STARTED,) if only_started else (Role.DONE, Role.FAILED)
    return sum(reading.role in counted for reading in readings)


def _with_compensations(nodes: Sequence[Node], history: Sequence[HistoryEvent]) -> tuple[Node, ...]:
    """A compensation names the call that it undoes, so this is exact."""
    by_call = {call_id: node.id for node in nodes for call_id in node.call_ids}
    changed = {node.id: node for node in nodes}
    for event in history:
        state = _UNDOING.get(event.kind)
        undone = changed.get(by_call.get(event.call_id.removeprefix("undo/"), ""))
        if state is None or undone is None:
            continue
        if state is State.EXECUTED:
            changed[undone.id] = replace(undone, state=State.COMPENSATED)
        undo = changed.get(f"{undone.id}:undo")
        if undo is not None:
            ids = tuple(dict.fromkeys((*undo.call_ids, event.call_id)))
            changed[undo.id] = replace(undo, state=state, call_ids=ids, count=undo.count + (state is State.EXECUTED))
    return tuple(changed[node.id] for node in nodes)


_UNDOING: Final[Mapping[str, State]] = {
    Kind.COMPENSATION_ATTEMPT_FAILED: State.RETRYING,
    Kind.COMPENSATION_EXECUTED: State.EXECUTED,
    Kind.COMPENSATION_FAILED: State.FAILED,
}


def _travelled(graph: Graph, edge: Edge, nodes: Sequence[Node], matched: Match[Reading]) -> Edge:
    """A branch that every way takes; a step to the next where there is no other way there."""
    if edge.kind in (EdgeKind.BRANCH, EdgeKind.EXCEPTION):
        return replace(edge, travelled=any(mark in matched.must for mark in _marks(graph, edge)))
    if edge.kind is not EdgeKind.NEXT or sum(other.target == edge.target for other in graph.edges) > 1:
        return edge
    done = {node.id for node in nodes if node.state not in (State.NONE, State.SKIPPED, State.PERHAPS)}
    return replace(edge, travelled=edge.source in done and edge.target in done)


def _marks(graph: Graph, edge: Edge) -> Iterable[str]:
    for block in blocks_in(graph.block):
        if isinstance(block, Choice | Loop | Try) and block.node == edge.source:
            labels = _labels(block)
            return [f"{edge.source}#{index}" for index, label in enumerate(labels) if label == edge.label]
    return []


def _labels(block: Choice | Loop | Try) -> list[str]:
    match block:
        case Choice():
            return [branch.label for branch in block.branches]
        case Try():
            return [handler.label for handler in block.handlers]
        case Loop():
            return ["each"]


def _by_name(graph: Graph, readings: Sequence[Reading], notes: Sequence[str]) -> Graph:
    """What can be said of a history that does not fit: names, and only as something open."""
    names = {(reading.kind, reading.name) for reading in readings}
    sites: dict[tuple[CallKind | None, str], int] = {}
    for node in graph.nodes:
        key = (_CALLS.get(node.kind), node.name)
        sites[key] = sites.get(key, 0) + 1
    nodes = tuple(
        replace(node, state=State.PERHAPS)
        if (key := (_CALLS.get(node.kind), node.name)) in names and sites[key] == 1
        else node
        for node in graph.nodes
    )
    return replace(graph, nodes=nodes, notes=(*graph.notes, *notes, _DOES_NOT_FIT))
