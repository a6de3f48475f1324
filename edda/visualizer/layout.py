"""Where everything goes: from nested blocks to places on paper. Pure arithmetic, in pixels.

A workflow is structured, so its picture is, too: each block becomes a `Picture` of its own with an *axis*, on which
the flow comes in at the top and goes out at the bottom; a block of blocks puts the pictures of its parts beside or
under each other, along one axis. So lines never cross and nothing has to be searched for: the time it takes grows
with the nodes.

Ways that do not go on (return, raise, a handler that ends) stand to the right of those that do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edda.visualizer.graph import (
    Block,
    Branch,
    Choice,
    EdgeKind,
    Frame,
    Graph,
    Loop,
    Node,
    NodeKind,
    Parallel,
    Run,
    Step,
    Try,
    nodes_in,
)

GAP: Final = 26.0
"""Between what follows each other; room for an arrow."""
ASIDE: Final = 28.0
"""Between what stands side by side."""
PADDING: Final = 16.0
"""Inside a frame."""
TITLE: Final = 22.0
"""Height of a frame's title."""
BUS: Final = 14.0
"""How far below a choice its ways part."""
LABEL: Final = 30.0
"""Room for the words on a way."""
CHARACTER: Final = 7.25
"""Width of a character of a label: 12 px of a monospaced font."""
SMALL: Final = 6.1
"""Width of a character of small print."""
LABEL_MAX: Final = 38
SMALL_MAX: Final = 46
PILL: Final = frozenset(
    {NodeKind.START, NodeKind.END, NodeKind.RETURN, NodeKind.RAISE, NodeKind.BREAK, NodeKind.CONTINUE}
)
POINTED: Final = frozenset({NodeKind.CHOICE, NodeKind.LOOP})


@dataclass(frozen=True, slots=True)
class Placed:
    """A node on paper."""

    node: str
    x: float
    y: float
    width: float
    height: float


Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A way, by its corners. `source` and `target` are the nodes it means, as far as it means two."""

    points: tuple[Point, ...]
    kind: EdgeKind = EdgeKind.NEXT
    label: str = ""
    label_at: Point = (0.0, 0.0)
    arrow: bool = False
    source: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Titled:
    """A frame around a part."""

    x: float
    y: float
    width: float
    height: float
    title: str
    node: str = ""
    style: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A part of the drawing. It occupies 0..width and 0..height."""

    width: float
    height: float
    axis: float
    goes_on: bool = True
    """The flow leaves it at the bottom of its axis."""
    placed: tuple[Placed, ...] = ()
    lines: tuple[Line, ...] = ()
    frames: tuple[Titled, ...] = ()

    def moved(self, x: float, y: float) -> Picture:
        return replace(
            self,
            placed=tuple(replace(one, x=one.x + x, y=one.y + y) for one in self.placed),
            lines=tuple(_moved(line, x, y) for line in self.lines),
            frames=tuple(replace(frame, x=frame.x + x, y=frame.y + y) for frame in self.frames),
        )


def _moved(line: Line, x: float, y: float) -> Line:
    points = tuple((px + x, py + y) for px, py in line.points)
    return replace(line, points=points, label_at=(line.label_at[0] + x, line.label_at[1] + y))


def layout(graph: Graph) -> Picture:
    """The whole drawing."""
    nodes = graph.by_id()
    hidden = not any(edge.target == "end" and nodes[edge.source].kind is not NodeKind.RETURN for edge in graph.edges)
    return _Layout(nodes, hides_end=hidden).of(graph.block)


@dataclass(slots=True)
class _Paper:
    """A picture in the making; places may be negative until it is finished."""

    placed: list[Placed] = field(default_factory=list[Placed])
    lines: list[Line] = field(default_factory=list[Line])
    frames: list[Titled] = field(default_factory=list[Titled])
    left: float = 0.0
    right: float = 0.0

    def put(self, picture: Picture, *, axis: float, y: float) -> None:
        """Place a picture so that its axis is at `axis` and its top at `y`."""
        x = axis - picture.axis
        moved = picture.moved(x, y)
        self.placed += moved.placed
        self.lines += moved.lines
        self.frames += moved.frames
        self.reach(x, x + picture.width)

    def reach(self, *xs: float) -> None:
        self.left, self.right = min(self.left, *xs), max(self.right, *xs)

    def done(self, height: float, *, goes_on: bool) -> Picture:
        """The axis was at 0."""
        picture = Picture(
            width=self.right - self.left,
            height=height,
            axis=-self.left,
            goes_on=goes_on,
            placed=tuple(self.placed),
            lines=tuple(self.lines),
            frames=tuple(self.frames),
        )
        return picture.moved(-self.left, 0.0)


@dataclass(frozen=True, slots=True)
class _Layout:
    nodes: Mapping[str, Node]
    hides_end: bool

    def of(self, block: Block) -> Picture:
        match block:
            case Run():
                return self._run(block)
            case Step():
                return self._step(block)
            case Choice():
                return self._choice(block)
            case Loop():
                return self._loop(block)
            case Parallel():
                return self._parallel(block) if block.joined else self._beginning(block)
            case Try():
                return self._try(block)
            case Frame():
                return self._frame(block)

    # -- one after the other -------------------------------------------------------------------------------------------

    def _run(self, run: Run) -> Picture:
        return self._stack([self.of(block) for block in self._shown(run)])

    def _shown(self, run: Run) -> Sequence[Block]:
        return [block for block in run.blocks if not (self.hides_end and block == Step("end"))]

    def _stack(self, pictures: Sequence[Picture]) -> Picture:
        paper, y, goes_on = _Paper(), 0.0, True
        for index, picture in enumerate(part for part in pictures if part.height or part.lines):
            if index:
                y += GAP
                if goes_on:
                    paper.lines.append(Line(((0.0, y - GAP), (0.0, y)), arrow=_has_head(picture)))
            paper.put(picture, axis=0.0, y=y)
            y += picture.height
            goes_on = picture.goes_on
        return paper.done(y, goes_on=goes_on)

    def _step(self, step: Step) -> Picture:
        paper = _Paper()
        node = self._put(paper, step.node, y=0.0)
        if step.undo:
            self._undo(paper, step.undo, beside=node)
        return paper.done(node.height, goes_on=self.nodes[step.node].kind not in PILL - {NodeKind.START})

    def _put(self, paper: _Paper, node_id: str, *, y: float) -> Placed:
        width, height = size_of(self.nodes[node_id])
        placed = Placed(node_id, -width / 2, y, width, height)
        paper.placed.append(placed)
        paper.reach(-width / 2, width / 2)
        return placed

    def _undo(self, paper: _Paper, undo: str, *, beside: Placed) -> None:
        width, height = size_of(self.nodes[undo])
        left, middle = beside.x + beside.width, beside.y + beside.height / 2
        x = left + ASIDE
        paper.placed.append(Placed(undo, x, middle - height / 2, width, height))
        paper.lines.append(
            Line(((left, middle), (x, middle)), EdgeKind.COMPENSATION, arrow=True, source=beside.node, target=undo)
        )
        paper.reach(x + width)

    # -- side by side --------------------------------------------------------------------------------------------------

    def _choice(self, choice: Choice) -> Picture:
        paper = _Paper()
        head = self._put(paper, choice.node, y=0.0)
        columns = [(branch.label, self._run_of(branch.block)) for branch in choice.branches]
        columns.sort(key=lambda column: not column[1].goes_on)
        bottom = self._columns(paper, columns, y=head.height, source=choice.node)
        return paper.done(bottom, goes_on=any(picture.goes_on for _, picture in columns))

    def _run_of(self, block: Block) -> Picture:
        return self.of(block)

    def _columns(
        self,
        paper: _Paper,
        columns: Sequence[tuple[str, Picture]],
        *,
        y: float,
        source: str,
        kind: EdgeKind = EdgeKind.BRANCH,
    ) -> float:
        """Put pictures side by side below `y`, lead to each from the axis, and those that go on back to it."""
        offsets = _side_by_side([(max(_words(label), 24.0), picture) for label, picture in columns])
        axis = _axis_of(columns, offsets)
        top = y + BUS + LABEL
        bottom = max(top + picture.height for _, picture in columns)
        going_on = [x - axis for (_, picture), x in zip(columns, offsets, strict=True) if picture.goes_on]
        merges = len(going_on) > 1 or any(going_on)
        end = bottom + (BUS if merges else 0.0)
        for (label, picture), offset in zip(columns, offsets, strict=True):
            x = offset - axis
            way: tuple[Point, ...] = ((0.0, y), (0.0, y + BUS), (x, y + BUS), (x, top)) if x else ((0.0, y), (x, top))
            at = (x, y + BUS + 11.0)
            first = picture.placed[0].node if picture.placed else ""
            paper.lines.append(Line(way, kind, label, at, arrow=_has_head(picture), source=source, target=first))
            paper.put(picture, axis=x, y=top)
            words = max(_words(label), 24.0) / 2
            paper.reach(x - words, x + words)
            if picture.goes_on:
                down = top + picture.height
                back: tuple[Point, ...] = ((x, down), (x, end), (0.0, end)) if x else ((0.0, down), (0.0, end))
                if down < end:
                    paper.lines.append(Line(back))
        return end

    # -- loops ---------------------------------------------------------------------------------------------------------

    def _loop(self, loop: Loop) -> Picture:
        paper = _Paper()
        head = self._put(paper, loop.node, y=PADDING)
        middle, y = head.y + head.height / 2, head.y + head.height
        body = self.of(loop.body)
        paper.lines.append(Line(((0.0, y), (0.0, y + GAP)), EdgeKind.BRANCH, arrow=_has_head(body), source=loop.node))
        paper.put(body, axis=0.0, y=y + GAP)
        bottom = y + GAP + body.height
        paper.reach(paper.left - PADDING, paper.right + PADDING)
        if body.goes_on:
            left = paper.left
            paper.lines.append(
                Line(
                    ((0.0, bottom), (0.0, bottom + BUS), (left, bottom + BUS), (left, middle), (head.x, middle)),
                    EdgeKind.BACK,
                    arrow=True,
                    target=loop.node,
                )
            )
            bottom += BUS
        if not loop.endless:
            right = paper.right
            out = bottom + PADDING
            paper.lines.append(
                Line(
                    ((-head.x, middle), (right, middle), (right, out), (0.0, out)),
                    EdgeKind.BRANCH,
                    "done",
                    (max(-head.x + 24.0, right - 18.0), middle),
                    source=loop.node,
                )
            )
            bottom = out
        paper.reach(paper.left - PADDING, paper.right + PADDING)
        end = bottom + (PADDING if loop.endless else 0.0)
        paper.frames.append(Titled(paper.left, 0.0, paper.right - paper.left, end, "", loop.node, "loop"))
        leaves = not loop.endless or self._is_broken(loop.body)
        picture = paper.done(end, goes_on=leaves)
        return self._stack([picture, self.of(loop.otherwise)]) if any(nodes_in(loop.otherwise)) else picture

    def _is_broken(self, block: Block) -> bool:
        """Whether a `break` in it leaves this loop and none inside."""
        match block:
            case Step():
                return self.nodes[block.node].kind is NodeKind.BREAK
            case Loop():
                return self._is_broken(block.otherwise)
            case Frame(function=True):
                return False
            case _:
                from edda.visualizer.graph import parts_of

                return any(self._is_broken(part) for part in parts_of(block))

    # -- at once -------------------------------------------------------------------------------------------------------

    def _parallel(self, parallel: Parallel) -> Picture:
        columns = [self._branch(branch, many=parallel.many) for branch in parallel.branches]
        offsets = _side_by_side([(24.0, picture) for picture in columns])
        width, height = size_of(self.nodes[parallel.node])
        middle = (offsets[0] + offsets[-1]) / 2
        bar = max(width, offsets[-1] - offsets[0] + 48.0)
        paper = _Paper()
        paper.placed.append(Placed(parallel.node, -bar / 2, 0.0, bar, height))
        paper.reach(-bar / 2, bar / 2)
        top = height + GAP
        end = top + max(picture.height for picture in columns) + GAP
        for offset, picture in zip(offsets, columns, strict=True):
            x = offset - middle
            first = picture.placed[0].node if picture.placed else ""
            paper.lines.append(
                Line(((x, height), (x, top)), EdgeKind.BRANCH, arrow=True, source=parallel.node, target=first)
            )
            paper.put(picture, axis=x, y=top)
            if picture.goes_on:
                paper.lines.append(Line(((x, top + picture.height), (x, end)), arrow=True))
        paper.frames.append(Titled(-bar / 2, end, bar, 6.0, "", "", "join"))
        return paper.done(end + 6.0, goes_on=any(picture.goes_on for picture in columns))

    def _branch(self, branch: Branch, *, many: bool) -> Picture:
        picture = self.of(branch.block)
        return _framed(picture, branch.label, style="many") if many else picture

    def _beginning(self, parallel: Parallel) -> Picture:
        """The main way goes straight on; beside it, what now runs by itself."""
        paper = _Paper()
        head = self._put(paper, parallel.node, y=0.0)
        x, middle, bottom = head.width / 2, head.height / 2, head.height
        for branch in parallel.branches:
            picture = self._branch(branch, many=parallel.many)
            axis = x + ASIDE + picture.axis
            top = head.height + GAP
            paper.lines.append(
                Line(
                    ((head.width / 2, middle), (axis, middle), (axis, top)),
                    EdgeKind.BRANCH,
                    branch.label if not parallel.many else "",
                    arrow=True,
                    source=parallel.node,
                )
            )
            paper.put(picture, axis=axis, y=top)
            x, bottom = axis - picture.axis + picture.width, max(bottom, top + picture.height)
        paper.lines.append(Line(((0.0, head.height), (0.0, bottom))))
        return paper.done(bottom, goes_on=True)

    # -- errors, frames ------------------------------------------------------------------------------------------------

    def _try(self, block: Try) -> Picture:
        body = _framed(self.of(block.body), "try", style="try", node=block.node)
        handlers = [(handler.label, self.of(handler.block)) for handler in block.handlers]
        handlers.sort(key=lambda handler: not handler[1].goes_on)
        paper = _Paper()
        main = self._stack([body, self.of(block.otherwise)]) if any(nodes_in(block.otherwise)) else body
        paper.put(main, axis=0.0, y=0.0)
        bottom = main.height
        start, x = body.width - body.axis, paper.right
        ends: list[Point] = []
        for label, picture in handlers:
            words = _words(label)
            left = max(picture.axis, words / 2)
            axis = x + ASIDE + left
            top = TITLE / 2 + 14.0 + LABEL
            paper.lines.append(
                Line(
                    ((start, TITLE / 2), (axis, TITLE / 2), (axis, top)),
                    EdgeKind.EXCEPTION,
                    label,
                    (axis, TITLE / 2 + 24.0),
                    arrow=_has_head(picture),
                    source=block.node,
                    target=picture.placed[0].node if picture.placed else "",
                )
            )
            paper.put(picture, axis=axis, y=top)
            x = axis + max(picture.width - picture.axis, words / 2)
            paper.reach(x)
            bottom = max(bottom, top + picture.height)
            if picture.goes_on:
                ends.append((axis, top + picture.height))
        goes_on = main.goes_on or bool(ends)
        if ends:
            bottom += BUS
            for axis, down in ends:
                paper.lines.append(Line(((axis, down), (axis, bottom), (0.0, bottom))))
        if main.goes_on and main.height < bottom:
            paper.lines.append(Line(((0.0, main.height), (0.0, bottom))))
        picture = paper.done(bottom, goes_on=goes_on)
        if not any(nodes_in(block.lastly)):
            return picture
        lastly = _framed(self.of(block.lastly), "finally", style="try")
        stacked = self._stack([replace(picture, goes_on=True), lastly])
        return replace(stacked, goes_on=goes_on and lastly.goes_on)

    def _frame(self, frame: Frame) -> Picture:
        inner = self.of(frame.block)
        if not frame.label:
            return inner
        style = (
            "detached"
            if frame.detached
            else "concurrent"
            if frame.concurrent
            else "function"
            if frame.function
            else "with"
        )
        title = f"{frame.label}()" if frame.function else frame.label
        framed = _framed(inner, title, style=style, flow=not frame.detached)
        if frame.detached:
            return _aside(framed)
        returns = frame.function and any(self.nodes[node].kind is NodeKind.RETURN for node in nodes_in(frame.block))
        return replace(framed, goes_on=framed.goes_on or returns)


# -- arithmetic --------------------------------------------------------------------------------------------------------


def _has_head(picture: Picture) -> bool:
    """An arrow ends where something is at the top of the picture."""
    return any(one.y < 1 and one.x <= picture.axis <= one.x + one.width for one in picture.placed) or any(
        frame.y < 1 and frame.x <= picture.axis <= frame.x + frame.width for frame in picture.frames
    )


def _side_by_side(columns: Sequence[tuple[float, Picture]]) -> list[float]:
    """Where the axes of pictures go that stand beside each other; each has a width at least."""
    axes: list[float] = []
    x = 0.0
    for least, picture in columns:
        left = max(picture.axis, least / 2)
        axes.append(x + left)
        x += left + max(picture.width - picture.axis, least / 2) + ASIDE
    return axes


def _axis_of(columns: Sequence[tuple[str, Picture]], offsets: Sequence[float]) -> float:
    """The way that goes on is straight; where several do, or none, the axis is amid them."""
    going_on = [x for (_, picture), x in zip(columns, offsets, strict=True) if picture.goes_on]
    filled = [x for (_, picture), x in zip(columns, offsets, strict=True) if picture.goes_on and picture.placed]
    chosen = filled or going_on or list(offsets)
    return (chosen[0] + chosen[-1]) / 2


def _framed(picture: Picture, title: str, *, style: str, node: str = "", flow: bool = True) -> Picture:
    paper = _Paper()
    paper.put(picture, axis=0.0, y=TITLE + PADDING / 2)
    width = _words(title) + 24.0
    paper.reach(paper.left - PADDING, paper.right + PADDING)
    if paper.right - paper.left < width:
        paper.reach(paper.left - (width - paper.right + paper.left) / 2)
        paper.reach(paper.left + width)
    height = TITLE + PADDING / 2 + picture.height
    end = height + PADDING
    if picture.goes_on and flow:
        paper.lines.append(Line(((0.0, height), (0.0, end))))
    if flow:
        paper.lines.insert(0, Line(((0.0, 0.0), (0.0, TITLE + PADDING / 2)), arrow=_has_head(picture)))
    paper.frames.insert(0, Titled(paper.left, 0.0, paper.right - paper.left, end, title, node, style))
    return paper.done(end, goes_on=picture.goes_on)


def _aside(picture: Picture) -> Picture:
    """Beside the way, which goes past it."""
    paper = _Paper()
    paper.put(picture, axis=ASIDE + picture.axis, y=0.0)
    paper.lines.append(Line(((0.0, 0.0), (0.0, picture.height))))
    return paper.done(picture.height, goes_on=True)


def _words(text: str) -> float:
    return min(len(text), SMALL_MAX) * SMALL + 12.0


def size_of(node: Node) -> tuple[float, float]:
    """Width and height of a node's shape."""
    label = min(len(node.label), LABEL_MAX) * CHARACTER
    small = max((min(len(line), SMALL_MAX) for line in (caption_of(node), *node.details)), default=0) * SMALL
    if node.kind in PILL:
        return max(label + 32.0, 64.0), 30.0
    if node.kind in POINTED:
        return max(label + 56.0, 96.0), 36.0
    if node.kind is NodeKind.PARALLEL:
        return max(label + 40.0, 110.0), 26.0
    return max(label, small) + 40.0, 46.0 + 14.0 * len(node.details)


def caption_of(node: Node) -> str:
    """The small line above the label."""
    return _CAPTIONS.get(node.kind, "")


_CAPTIONS: Final[Mapping[NodeKind, str]] = {
    NodeKind.ACTIVITY: "activity",
    NodeKind.EVENT_WAIT: "waits for event",
    NodeKind.TIMER: "timer",
    NodeKind.CHILD: "child workflow",
    NodeKind.CHILD_RESULT: "waits for child",
    NodeKind.EVENT_SEND: "sends event",
    NodeKind.COMPENSATION: "undone by",
    NodeKind.REGISTRATION: "registers compensation",
    NodeKind.CALL: "function",
}
