"""Which calls in a workflow function are durable, and what each is: from a call's syntax to a node.

A call is known by what it calls (`wait_event`, `ctx.run`, `paid.wait`, `order.start`) or by getting the context as its
first argument, which is how activities are called. Where the source does not show that such a function is an activity,
the node says so (`certain=False`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edda.visualizer.graph import Node, NodeKind
from edda.visualizer.names import Names

ANY: Final = ".*"
ID_KEYWORDS: Final = ("activity_id", "timer_id", "event_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a call stands: what its names mean there."""

    names: Names
    contexts: frozenset[str]
    """Names of the context, usually `ctx`."""
    local: frozenset[str]
    """Names that the function itself binds; `x.start()` on one of them is no workflow."""


def node_of(call: ast.Call, place: Place, *, awaited: bool) -> Node | None:
    """The node for a call, without its id and place; None where it is not durable."""
    function = place.names.canonical(call.func)
    by_name = _BY_NAME.get(function)
    if by_name is not None:
        return by_name(call, place)
    if isinstance(call.func, ast.Attribute):
        by_method = _of_method(call, call.func, place, awaited=awaited)
        if by_method is not None:
            return by_method
    if takes_context(call, place):
        return _activity(call, place)
    return None


def takes_context(call: ast.Call, place: Place) -> bool:
    return bool(call.args) and is_context(call.args[0], place)


def is_context(expression: ast.expr, place: Place) -> bool:
    return isinstance(expression, ast.Name) and expression.id in place.contexts


# -- activities --------------------------------------------------------------------------------------------------------


def _activity(call: ast.Call, place: Place) -> Node:
    spelled = ast.unparse(call.func)
    declared = place.names.declared.get(_key(call.func))
    dynamic = declared is None and (not isinstance(call.func, ast.Name | ast.Attribute) or _is_local(call.func, place))
    return Node(
        id="",
        kind=NodeKind.ACTIVITY,
        label=declared.name if declared else spelled,
        name="" if dynamic else declared.name if declared else spelled.rpartition(".")[2],
        pattern=ANY if dynamic else "",
        details=("chosen when it runs",) if dynamic else (),
        certain=declared is not None,
        call_pattern=_call_pattern(call, place),
        literals=_literals(call.args[1:], call.keywords),
    )


def _is_local(function: ast.expr, place: Place) -> bool:
    """What it is called with is a variable of the function: its name says nothing."""
    while isinstance(function, ast.Attribute):
        function = function.value
    return isinstance(function, ast.Name) and function.id in place.local and function.id not in ("self", "cls")


def _key(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return f"{owner}.{name}"
        case _:
            return ""


def _literals(
    args: list[ast.expr], keywords: list[ast.keyword]
) -> tuple[tuple[int | str, str | int | bool | None], ...]:
    """Those arguments that are told apart in history: plain values, up to the first `*rest`."""
    found: list[tuple[int | str, str | int | bool | None]] = []
    for index, argument in enumerate(args):
        if isinstance(argument, ast.Starred):
            break
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str | int | None):
            found.append((index, argument.value))
    for keyword in keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
        if keyword.arg and keyword.arg not in ID_KEYWORDS and isinstance(value, str | int | None):
            found.append((keyword.arg, value))
    return tuple(found)


def _run_step(call: ast.Call, place: Place) -> Node:
    """`ctx.run("name", function, ...)`."""
    said = _said(_argument(call, 0, ""), place)
    return Node(
        id="",
        kind=NodeKind.ACTIVITY,
        label=said.label or "run",
        name=said.name,
        pattern=said.pattern,
        details=(f"runs {ast.unparse(call.args[1])}",) if len(call.args) > 1 else (),
        literals=_literals(call.args[2:], call.keywords),
    )


def _callback(call: ast.Call, place: Place) -> Node:
    given = _argument(call, 0, "name")
    said = _said(given, place) if given is not None else _Said("callback", "callback", "")
    return Node(
        id="",
        kind=NodeKind.ACTIVITY,
        label=said.label,
        name=said.name,
        pattern=said.pattern,
        details=("makes a token",),
    )


# -- events ------------------------------------------------------------------------------------------------------------


def _wait_event(call: ast.Call, place: Place) -> Node:
    return _event_wait(
        call, place, _said(_argument(call, 1, "event_type"), place), timeout=_argument(call, 2, "timeout_seconds")
    )


def _event_wait(call: ast.Call, place: Place, said: _Said, *, timeout: ast.expr | None) -> Node:
    details = [
        f"{keyword.arg} {_short(keyword.value)}"
        for keyword in call.keywords
        if keyword.arg in ("match", "subject", "key")
    ]
    if timeout is not None and not (isinstance(timeout, ast.Constant) and timeout.value is None):
        details.append(f"times out after {_seconds(timeout)}")
    return Node(
        id="",
        kind=NodeKind.EVENT_WAIT,
        label=said.label,
        name=said.name,
        pattern=said.pattern,
        details=tuple(details),
        call_pattern=_call_pattern(call, place),
    )


def _send_event(call: ast.Call, place: Place) -> Node:
    return _event_sent(_said(_argument(call, 0, "event_type"), place))


def _send_event_transactional(call: ast.Call, place: Place) -> Node:
    return _event_sent(_said(_argument(call, 1, "event_type"), place))


def _event_sent(said: _Said) -> Node:
    return Node(id="", kind=NodeKind.EVENT_SEND, label=said.label, name=said.name, pattern=said.pattern)


# -- timers ------------------------------------------------------------------------------------------------------------


def _timer(name: str, verb: str, *argument: str) -> Callable[[ast.Call, Place], Node]:
    def node(call: ast.Call, place: Place) -> Node:
        given = _argument(call, 1, *argument)
        what = "" if given is None else ast.unparse(given) if verb == "until" else _seconds(given)
        return Node(
            id="",
            kind=NodeKind.TIMER,
            label=f"{verb} {what}".strip(),
            name=name,
            call_pattern=_call_pattern(call, place),
        )

    return node


def _asyncio_sleep(call: ast.Call, place: Place) -> Node | None:
    """`asyncio.sleep(0)` only lets others run: no timer, no row."""
    given = _argument(call, 0, "delay")
    known = given.value if isinstance(given, ast.Constant) else None
    if isinstance(known, int | float) and known <= 0:
        return None
    what = "" if given is None else _seconds(given)
    return Node(id="", kind=NodeKind.TIMER, label=f"sleep {what}".strip(), name="timer", optional=known is None)


# -- children, compensations -------------------------------------------------------------------------------------------


def _register(call: ast.Call, place: Place) -> Node:
    given = _argument(call, 1, "compensation_func")
    spelled = "" if given is None else ast.unparse(given)
    declared = place.names.declared.get(_key(given)) if given is not None else None
    dynamic = given is None or not isinstance(given, ast.Name | ast.Attribute)
    name = declared.name if declared else spelled.rpartition(".")[2]
    return Node(
        id="",
        kind=NodeKind.REGISTRATION,
        label=name if not dynamic else spelled or "register",
        name="" if dynamic else name,
        pattern=ANY if dynamic else "",
        call_pattern=_call_pattern(call, place),
    )


def _of_method(call: ast.Call, function: ast.Attribute, place: Place, *, awaited: bool) -> Node | None:
    """`ctx.run`, `paid.wait`, `paid.send`, `callback.wait`, `order.start`, `order.options().run`, `handle.result`."""
    owner, method = function.value, function.attr
    if is_context(owner, place):
        maker = {"run": _run_step, "callback": _callback}.get(method)
        return None if maker is None else maker(call, place)
    event = place.names.events.get(owner.id) if isinstance(owner, ast.Name) else None
    if method == "wait" and (event is not None or takes_context(call, place)):
        said = _Said(event or ast.unparse(owner), event or "", "" if event else ANY)
        return _event_wait(call, place, said, timeout=_argument(call, None, "timeout_seconds"))
    if method == "send" and (event is not None or (awaited and _is_of_module(owner, place))):
        return _event_sent(_Said(event or ast.unparse(owner), event or "", "" if event else ANY))
    if method in ("start", "run"):
        return _child(call, owner, method, place)
    if method == "wait" and awaited and isinstance(owner, ast.Name) and owner.id in place.local and not call.args:
        return _event_wait(
            call, place, _Said(owner.id, "edda.callback", ""), timeout=_argument(call, None, "timeout_seconds")
        )
    if method == "result" and awaited and (not call.args or any(keyword.arg == "timeout" for keyword in call.keywords)):
        return Node(
            id="",
            kind=NodeKind.CHILD_RESULT,
            label=f"result of {ast.unparse(owner)}",
            pattern=r".*\.result",
            certain=False,
        )
    return None


def _child(call: ast.Call, owner: ast.expr, method: str, place: Place) -> Node | None:
    options: list[str] = []
    if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute) and owner.func.attr == "options":
        options = [f"{keyword.arg} {_short(keyword.value)}" for keyword in owner.keywords if keyword.arg]
        owner = owner.func.value
    declared = place.names.declared.get(_key(owner))
    if declared is not None and declared.sort != "workflow":
        return None
    if declared is None and not options and not _is_of_module(owner, place):
        return None
    return Node(
        id="",
        kind=NodeKind.CHILD,
        label=declared.name if declared else ast.unparse(owner),
        name=declared.name if declared else ast.unparse(owner).rpartition(".")[2],
        details=(("started" if method == "start" else "started and waited for"), *options),
        certain=declared is not None,
    )


def _is_of_module(owner: ast.expr, place: Place) -> bool:
    """A plain or dotted name that the function does not bind itself, and no module of Python's own."""
    root = owner
    while isinstance(root, ast.Attribute):
        root = root.value
    if not isinstance(root, ast.Name) or root.id in place.local or root.id in place.contexts:
        return False
    return place.names.canonical(root).split(".")[0] not in ("asyncio", "subprocess", "self", "cls", "threading")


# -- what arguments say ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Said:
    """A name that the source gives, wholly or in part."""

    label: str
    name: str
    pattern: str


def _said(expression: ast.expr | None, place: Place) -> _Said:
    if expression is None:
        return _Said("", "", ANY)
    text = place.names.text_of(expression)
    if text is not None:
        return _Said(text, text, "")
    if isinstance(expression, ast.JoinedStr):
        return _Said(_template(expression), "", _pattern(expression))
    return _Said(ast.unparse(expression), "", ANY)


def _template(expression: ast.JoinedStr) -> str:
    """`order.{order_id}.paid`."""
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "{" + ast.unparse(_inner(part)) + "}"
        for part in expression.values
    )


def _inner(part: ast.expr) -> ast.expr:
    return part.value if isinstance(part, ast.FormattedValue) else part


def _pattern(expression: ast.JoinedStr) -> str:
    return "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else ANY for part in expression.values)


def _argument(call: ast.Call, position: int | None, *names: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg in names:
            return keyword.value
    if position is None or len(call.args) <= position:
        return None
    if any(isinstance(argument, ast.Starred) for argument in call.args[: position + 1]):
        return None
    return call.args[position]


def _call_pattern(call: ast.Call, place: Place) -> str:
    given = _argument(call, None, *ID_KEYWORDS)
    if given is None or (isinstance(given, ast.Constant) and given.value is None):
        return ""
    said = _said(given, place)
    return re.escape(said.name) if said.name else said.pattern


def _seconds(expression: ast.expr) -> str:
    """A duration as people say it."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, int | float):
        return f"{expression.value:g} s"
    return _short(expression)


def words_of(node: ast.AST) -> str:
    """Source text for people: which calls wait is seen in the diagram anyway."""
    return re.sub(r"\bawait (?=\S)", "", re.sub(r"\(await ([^()]+\([^()]*\))\)", r"\1", ast.unparse(node)))


def _short(expression: ast.expr) -> str:
    return ast.unparse(expression)


_BY_NAME: Final[dict[str, Callable[[ast.Call, Place], Node | None]]] = {
    "edda.wait_event": _wait_event,
    "edda.send_event": _send_event,
    "edda.send_event_transactional": _send_event_transactional,
    "edda.register_compensation": _register,
    "edda.wait_timer": _timer("wait_timer", "wait", "duration_seconds"),
    "edda.sleep": _timer("wait_timer", "sleep", "seconds"),
    "edda.wait_until": _timer("wait_until", "until", "until_time"),
    "edda.sleep_until": _timer("wait_until", "until", "target_time"),
    "asyncio.sleep": _asyncio_sleep,
}
