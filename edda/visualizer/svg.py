"""From a graph to SVG text: accessible, in light and dark, without script.

Every word from a workflow is escaped text; nothing of it becomes markup, an attribute name, a style or an address.
Looks are classes (`diagram.css`), so that the drawing can be put into a page with a strict content security policy;
alone, as a file, it carries that style sheet with it. A node is a focusable button: `data-node` is its id,
`data-calls` the ids of its calls in history.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import Final

from edda.visualizer.graph import EdgeKind, Graph, Node, NodeKind, State
from edda.visualizer.layout import (
    LABEL_MAX,
    PILL,
    POINTED,
    SMALL_MAX,
    Line,
    Picture,
    Placed,
    Point,
    Titled,
    caption_of,
    layout,
)

MARGIN: Final = 20.0
CORNER: Final = 7.0
"""Radius where a line turns."""

SYMBOLS: Final[dict[State, str]] = {
    State.EXECUTED: "✓",
    State.RUNNING: "▶",
    State.WAITING: "…",
    State.RETRYING: "↻",
    State.FAILED: "✕",
    State.COMPENSATED: "↶",
    State.PERHAPS: "?",
}


def style_sheet() -> str:
    """The CSS of the drawings, for a page that shows them."""
    return files("edda.visualizer").joinpath("diagram.css").read_text("utf-8")


def to_svg(graph: Graph, *, alone: bool = True) -> str:
    """The drawing of a graph. `alone`: with its style sheet, as a file of its own; else the page has to bring it."""
    picture = layout(graph)
    width, height = picture.width + 2 * MARGIN, picture.height + 2 * MARGIN
    nodes = graph.by_id()
    title = escape(f"Workflow {graph.name}" + (f": {graph.title}" if graph.title else ""))
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="edda-diagram" role="group" aria-label="{title}" '
            f'width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="{-MARGIN:.0f} {-MARGIN:.0f} {width:.0f} {height:.0f}">',
            f"<title>{title}</title>",
            f"<style>{style_sheet()}</style>" if alone else "",
            *(_frame(frame) for frame in picture.frames),
            *(part for line in picture.lines for part in _line(line)),
            *(_node(placed, nodes[placed.node]) for placed in _in_reading_order(picture)),
            *(_label(line) for line in picture.lines if line.label),
            *(_title(frame) for frame in picture.frames if frame.title),
            "</svg>",
        ]
    )


def _in_reading_order(picture: Picture) -> list[Placed]:
    return sorted(picture.placed, key=lambda placed: (placed.y, placed.x))


# -- frames and lines --------------------------------------------------------------------------------------------------


def _frame(frame: Titled) -> str:
    radius = 3 if frame.style == "join" else 8
    box = f'x="{frame.x:.1f}" y="{frame.y:.1f}" width="{frame.width:.1f}" height="{frame.height:.1f}" rx="{radius}"'
    return f'<g class="frame {frame.style}"><rect {box}/></g>'


def _title(frame: Titled) -> str:
    at = f'x="{frame.x + 10:.1f}" y="{frame.y + 16:.1f}"'
    return f'<text class="frame-title" {at}>{escape(cut(frame.title, SMALL_MAX))}</text>'


def _line(line: Line) -> Iterator[str]:
    kind = f"line {_CLASS[line.kind]}"
    yield f'<path class="{kind}" d="{_path(line.points)}"/>'
    if line.arrow:
        yield f'<path class="head {_CLASS[line.kind]}" d="{_head(line.points)}"/>'


_CLASS: Final[dict[EdgeKind, str]] = {
    EdgeKind.NEXT: "next",
    EdgeKind.BRANCH: "branch",
    EdgeKind.BACK: "back",
    EdgeKind.EXCEPTION: "exception",
    EdgeKind.COMPENSATION: "undo",
}


def _path(points: tuple[Point, ...]) -> str:
    """A line with round corners."""
    commands = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        one, other = _towards(corner, before), _towards(corner, after)
        commands.append(f"L{one[0]:.1f} {one[1]:.1f}Q{corner[0]:.1f} {corner[1]:.1f} {other[0]:.1f} {other[1]:.1f}")
    commands.append(f"L{points[-1][0]:.1f} {points[-1][1]:.1f}")
    return "".join(commands)


def _towards(corner: Point, other: Point) -> Point:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = abs(dx) + abs(dy)
    share = min(CORNER, length / 2) / length if length else 0.0
    return corner[0] + dx * share, corner[1] + dy * share


def _head(points: tuple[Point, ...]) -> str:
    """The tip of an arrow, a triangle at the last point."""
    (x0, y0), (x, y) = points[-2], points[-1]
    if abs(x - x0) > abs(y - y0):
        back = -7 if x > x0 else 7
        return f"M{x:.1f} {y:.1f}L{x + back:.1f} {y - 4:.1f}L{x + back:.1f} {y + 4:.1f}Z"
    back = -7 if y > y0 else 7
    return f"M{x:.1f} {y:.1f}L{x - 4:.1f} {y + back:.1f}L{x + 4:.1f} {y + back:.1f}Z"


def _label(line: Line) -> str:
    x, y = line.label_at
    full = f"<title>{escape(line.label)}</title>" if len(line.label) > SMALL_MAX else ""
    return (
        f'<text class="way {_CLASS[line.kind]}" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">'
        f"{full}{escape(cut(line.label, SMALL_MAX))}</text>"
    )


# -- nodes -------------------------------------------------------------------------------------------------------------


def _node(placed: Placed, node: Node) -> str:
    classes = f"node {node.kind.name.lower().replace('_', '-')} is-{node.state.value}"
    if not node.reachable:
        classes += " unreachable"
    calls = f' data-calls="{escape(" ".join(node.call_ids))}"' if node.call_ids else ""
    return (
        f'<g class="{classes}" tabindex="0" role="button" data-node="{escape(node.id)}"{calls} '
        f'aria-label="{escape(in_words(node))}" transform="translate({placed.x:.1f} {placed.y:.1f})">'
        f"<title>{escape(in_words(node))}</title>"
        f"{_shape(placed, node)}{_texts(placed, node)}{_badge(placed, node)}</g>"
    )


def in_words(node: Node) -> str:
    """A node for those who cannot see it, and for the mouse that rests on it."""
    words = [f"{caption_of(node) or node.kind.value}: {node.label}" if node.kind not in PILL else node.label]
    words += node.details
    if not node.reachable:
        words.append("never reached")
    if node.state is not State.NONE:
        words.append(STATE_WORDS[node.state])
    if node.count > 1:
        words.append(f"{node.count} times")
    if node.line:
        words.append(f"line {node.line}")
    return ", ".join(words)


STATE_WORDS: Final[dict[State, str]] = {
    State.NONE: "",
    State.EXECUTED: "executed",
    State.RUNNING: "running",
    State.WAITING: "waiting",
    State.RETRYING: "will be tried again",
    State.FAILED: "failed",
    State.COMPENSATED: "executed and undone",
    State.SKIPPED: "skipped",
    State.PERHAPS: "perhaps executed: history does not tell it from another place",
}


def _shape(placed: Placed, node: Node) -> str:
    width, height = placed.width, placed.height
    if node.kind in POINTED:
        tip = 14.0
        corners = [
            (tip, 0.0),
            (width - tip, 0.0),
            (width, height / 2),
            (width - tip, height),
            (tip, height),
            (0.0, height / 2),
        ]
        return f'<polygon class="shape" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>'
    radius = height / 2 if node.kind in PILL else 4.0 if node.kind is NodeKind.PARALLEL else 8.0
    box = f'<rect class="shape" width="{width:.1f}" height="{height:.1f}" rx="{radius:.1f}"/>'
    if not caption_of(node):
        return box
    return f'{box}<rect class="stripe" x="7" y="8" width="4" height="{height - 16:.1f}" rx="2"/>'


def _texts(placed: Placed, node: Node) -> str:
    label = escape(cut(node.label, LABEL_MAX))
    if not caption_of(node):
        middle = f'x="{placed.width / 2:.1f}" y="{placed.height / 2 + 4:.1f}" text-anchor="middle"'
        return f'<text class="label" {middle}>{label}</text>'
    lines = [
        f'<text class="caption" x="20" y="17">{escape(caption_of(node))}</text>',
        f'<text class="label" x="20" y="34">{label}</text>',
    ]
    for index, detail in enumerate(node.details):
        lines.append(f'<text class="detail" x="20" y="{50 + 14 * index}">{escape(cut(detail, SMALL_MAX))}</text>')
    return "".join(lines)


def _badge(placed: Placed, node: Node) -> str:
    """The state, as a sign, not by colour alone; and how often."""
    symbol = SYMBOLS.get(node.state)
    if symbol is None:
        return ""
    text = f"{symbol} {node.count}×" if node.count > 1 else symbol
    width = 18.0 if len(text) == 1 else 14.0 + 7.0 * len(text)
    x = placed.width - width + 6.0
    return (
        f'<g class="badge"><rect x="{x:.1f}" y="-9" width="{width:.1f}" height="18" rx="9"/>'
        f'<text x="{x + width / 2:.1f}" y="4" text-anchor="middle">{escape(text)}</text></g>'
    )


def cut(text: str, length: int) -> str:
    """At most so many characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
