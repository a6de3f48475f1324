"""Which places of the source can have written which rows of history: the ways of an automaton that fit.

Two passes, as over a trellis: forwards, where the automaton can be after each row; backwards, from where the rest of
the history can still be read. What is on some way that fits *may* have happened; what is on every one *must* have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edda.visualizer.automaton import Automaton, Role

R = TypeVar("R")

Fits = Callable[[str, Role, R], bool]
"""Whether a node can have written a row, in this role."""


@dataclass(frozen=True, slots=True)
class Match(Generic[R]):
    """What history says of a way through the function."""

    explained: bool
    """Some way fits. Without one the code is another than what ran, or calls what is not drawn."""
    nodes_of: tuple[frozenset[str], ...] = ()
    """For each row the nodes that can have written it; one for certain if there is one."""
    must: frozenset[str] = frozenset()
    may: Collection[str] = frozenset()
    following: frozenset[str] = frozenset()
    """Nodes that can still come."""
    next: frozenset[str] = frozenset()
    """The steps that come next on every way, if nothing raises between."""
    possible: frozenset[str] = frozenset()
    """The steps that may come next on some way."""


Place = tuple[int, int]
"""How many rows have been read, and the state."""


def match(automaton: Automaton, rows: Sequence[R], fits: Fits[R], *, accepts: Callable[[int], bool]) -> Match[R]:
    """`accepts`: the states in which history may end."""
    trellis = _forwards(automaton, rows, fits)
    alive = _backwards(trellis, [(len(rows), state) for state in trellis.layers[-1] if accepts(state)])
    if not alive:
        return Match(explained=False)
    ends = [state for position, state in alive if position == len(rows) and accepts(state)]
    return Match(
        explained=True,
        nodes_of=_nodes_of(trellis, alive, len(rows)),
        must=_must(automaton, trellis, alive, [(len(rows), state) for state in ends]),
        may=automaton.vague.union(*(automaton.marks[state] for _, state in alive)),
        following=_following(automaton, ends) | automaton.vague,
        possible=frozenset(move.node for state in ends for move in automaton.moves[state]),
        next=_next(automaton, [state for state in trellis.fresh if (len(rows), state) in alive]),
    )


@dataclass(slots=True)
class _Trellis:
    layers: list[set[int]]
    before: dict[Place, list[tuple[Place, str]]]
    """Ways into a place: from where, and the node that was read, if one was."""
    fresh: set[int]
    """The states that the last row led to, or the start."""


def _forwards(automaton: Automaton, rows: Sequence[R], fits: Fits[R]) -> _Trellis:
    fresh = {automaton.start}
    trellis = _Trellis([], {(0, automaton.start): []}, fresh)
    known: dict[tuple[str, Role, int], bool] = {}
    for position in range(len(rows) + 1):
        trellis.fresh = fresh
        layer = _closed(automaton, trellis, position, fresh)
        trellis.layers.append(layer)
        if position == len(rows):
            break
        fresh = set[int]()
        for state in layer:
            for move in automaton.moves[state]:
                key = (move.node, move.role, position)
                if key not in known:
                    known[key] = fits(move.node, move.role, rows[position])
                if known[key]:
                    trellis.before.setdefault((position + 1, move.target), []).append(((position, state), move.node))
                    fresh.add(move.target)
    return trellis


def _closed(automaton: Automaton, trellis: _Trellis, position: int, fresh: Collection[int]) -> set[int]:
    """All states reached without reading."""
    seen, pending = set(fresh), list(fresh)
    while pending:
        state = pending.pop()
        for target in (*automaton.free[state], *automaton.throws[state]):
            trellis.before.setdefault((position, target), []).append(((position, state), ""))
            if target not in seen:
                seen.add(target)
                pending.append(target)
    return seen


def _backwards(trellis: _Trellis, ends: Sequence[Place]) -> set[Place]:
    """The places on ways that fit."""
    alive, pending = set(ends), list(ends)
    while pending:
        for place, _ in trellis.before.get(pending.pop(), ()):
            if place not in alive:
                alive.add(place)
                pending.append(place)
    return alive


def _nodes_of(trellis: _Trellis, alive: set[Place], count: int) -> tuple[frozenset[str], ...]:
    found: list[set[str]] = [set() for _ in range(count)]
    for place in alive:
        for before, node in trellis.before.get(place, ()):
            if node and before in alive:
                found[before[0]].add(node)
    return tuple(frozenset(nodes) for nodes in found)


def _must(automaton: Automaton, trellis: _Trellis, alive: set[Place], ends: Sequence[Place]) -> frozenset[str]:
    """The marks on every way from the start to an end: what all ways into a place have in common, until nothing
    changes."""
    marks = {mark: 1 << number for number, mark in enumerate(sorted({m for marks in automaton.marks for m in marks}))}
    own = [sum(marks[mark] for mark in state) for state in automaton.marks]
    everything = (1 << len(marks)) - 1
    following: dict[Place, list[Place]] = {}
    for place in alive:
        for before, _ in trellis.before.get(place, ()):
            if before in alive:
                following.setdefault(before, []).append(place)
    start = (0, automaton.start)
    common = dict.fromkeys(alive, everything)
    common[start] = own[automaton.start]
    pending = dict.fromkeys(sorted(alive))  # in the order of the rows, so that most places are looked at once
    while pending:
        place = next(iter(pending))
        del pending[place]
        if place == start:
            continue
        into = everything
        for before, _ in trellis.before[place]:
            if before in alive:
                into &= common[before]
        into |= own[place[1]]
        if into != common[place]:
            common[place] = into
            pending.update(dict.fromkeys(following.get(place, ())))
    result = everything
    for place in ends:
        result &= common[place]
    return frozenset(mark for mark, bit in marks.items() if result & bit)


def _following(automaton: Automaton, ends: Sequence[int]) -> frozenset[str]:
    seen, pending = set(ends), list(ends)
    while pending:
        state = pending.pop()
        moves = (move.target for move in automaton.moves[state])
        for target in (*automaton.free[state], *automaton.throws[state], *moves):
            if target not in seen:
                seen.add(target)
                pending.append(target)
    return frozenset[str]().union(*(automaton.marks[state] for state in seen - set(ends)))


def _next(automaton: Automaton, fresh: Collection[int]) -> frozenset[str]:
    """The steps that wait to be asked for or answered, where all ways agree on it; `fresh`: where the last row led."""
    quiet, pending = set(fresh), list(fresh)
    while pending:
        for target in automaton.free[pending.pop()]:
            if target not in quiet:
                quiet.add(target)
                pending.append(target)
    found = [nodes for state in quiet if (nodes := _steps_at(automaton, state)) is not None]
    return found[0] if found and all(nodes == found[0] for nodes in found) else frozenset()


def _steps_at(automaton: Automaton, state: int) -> frozenset[str] | None:
    """The steps that a state can read; None for one that only leads on."""
    moves = [move for move in automaton.moves[state] if move.target != state]
    if moves:
        return frozenset(move.node for move in moves)
    return None if automaton.free[state] else frozenset()
