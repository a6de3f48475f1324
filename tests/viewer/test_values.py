from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edda.viewer.failure import failure_of
from edda.viewer.values import (
    BRIEF_MAX,
    BYTES_SHOWN,
    NODES_MAX,
    Node,
    one_line,
    shown_arguments,
    shown_bytes,
    shown_json,
)


def nodes(node: Node) -> list[Node]:
    return [node, *(inner for child in node.children for inner in nodes(child))]


def test_an_object_is_a_tree_of_its_members() -> None:
    tree = shown_json('{"a":1.10,"b":[true,null,"x"],"c":{}}').node
    assert [(node.key, node.kind, node.text) for node in nodes(tree)] == [
        (None, "object", ""),
        ("a", "number", "1.10"),
        ("b", "array", ""),
        ("0", "word", "true"),
        ("1", "word", "null"),
        ("2", "string", "x"),
        ("c", "word", "{}"),
    ]


def test_what_is_folded_is_told_in_one_line() -> None:
    items = [{"sku": "tea\npot", "quantity": 1, "tags": ["a"], "rest": "x" * 100}]
    node = shown_json(json.dumps(items)).node.children[0]
    assert node.brief == "sku: tea pot, quantity: 1, tags: 1 item, rest: " + "x" * 12 + "…"
    assert len(node.brief) == BRIEF_MAX


def test_a_value_is_told_in_one_line() -> None:
    assert one_line(shown_json('{"a": 1, "b": [1, 2], "c": null}'), 80) == "a: 1, b: 2 items, c: null"
    assert one_line(shown_json('["a", {"b": 1}]'), 80) == "a, {…}"
    assert one_line(shown_json('"two\\nlines"'), 80) == "two lines"
    assert one_line(shown_json(json.dumps({"k": "x" * 500})), 20) == "k: " + "x" * 16 + "…"
    assert one_line(None, 20) == ""


def test_numbers_are_shown_digit_by_digit() -> None:
    assert (
        shown_json("12345678901234567890.000000000000000000001").node.text
        == "12345678901234567890.000000000000000000001"
    )
    assert len(shown_json("9" * 5000).node.text) == 400


def test_a_tagged_value_is_its_inside_with_a_note() -> None:
    assert shown_json('{"$edda":"decimal","v":"1.10"}').node == Node(kind="string", text="1.10", note="decimal")
    model = shown_json('{"$edda":"model","t":"shop.models:Order","v":{"id":"1"}}').node
    assert (model.kind, model.note, model.children[0].text) == ("object", "Order", "1")
    assert shown_json('{"$edda":["odd"]}').node.note == '"list"'


def test_arguments_are_shown_by_name_as_far_as_names_are_known() -> None:
    shown = shown_arguments('{"args":["a",2],"kwargs":{"c":3}}', ("first",))
    assert shown is not None
    assert [child.key for child in shown.node.children] == ["first", "1", "c"]


def test_what_is_no_json_is_shown_as_text() -> None:
    for text in ("not json", "[" * 100_000, ""):
        assert shown_json(text).node.kind == "text"
    assert shown_arguments("[1]").node.kind == "array"  # type: ignore[union-attr]
    assert shown_arguments(None) is None


def test_a_large_value_says_that_it_is_cut() -> None:
    many = shown_json(json.dumps(list(range(1000))))
    assert not many.whole
    assert many.node.children[-1].text == "… and 950 more"
    assert not shown_json(json.dumps("x" * 300_000)).whole
    assert shown_json(json.dumps("x" * 1_000)).whole


def test_bytes_are_text_where_they_are_text_else_hexadecimal() -> None:
    assert shown_bytes("grüße".encode()).node.text == "grüße"
    binary = shown_bytes(bytes(range(256)) * 2)
    assert binary.node.text.splitlines()[0].startswith("0000  00 01 02")
    assert not binary.whole
    assert shown_bytes(b"\xff" * BYTES_SHOWN).whole


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=60) | st.dictionaries(st.text() | st.just("$edda"), inner, max_size=60),
    max_leaves=200,
)


@given(json_values)
def test_any_json_is_shown_in_a_bounded_tree(value: object) -> None:
    assert len(nodes(shown_json(json.dumps(value)).node)) <= 4 * NODES_MAX


def test_a_wide_and_deep_value_costs_no_more_than_its_bound() -> None:
    value: object = "leaf"
    for _ in range(10):
        value = [value] * 10 if len(json.dumps(value)) < 20_000 else [value]
    assert len(nodes(shown_json(json.dumps(value)).node)) <= 2 * NODES_MAX


def test_a_failure_says_where_it_was_raised() -> None:
    frames = (
        'Traceback:\n  File "/srv/engine.py", line 7, in run\n    go()\n'
        '  File "C:\\shop\\pay.py", line 71, in pay\n    raise\n'
    )
    failure = failure_of(json.dumps({"error_type": "E", "error_message": "two\nlines", "stack_trace": frames}))
    assert failure is not None
    assert (failure.origin, failure.line) == ("pay.py:71, in pay", "E: two lines")
    for nowhere in ("", "E: no frame", 'File "a.py", line x, in y'):
        assert failure_of(json.dumps({"error_type": "E", "stack_trace": nowhere})).origin == ""  # type: ignore[union-attr]


def test_a_failure_is_read_whatever_stands_there() -> None:
    recorded = {
        "error_type": "OutOfStock",
        "error_message": "no cups",
        "stack_trace": 'Traceback:\n  File "a.py", line 1\n',
        "cause": {"error_type": "KeyError", "error_message": "'cup'"},
    }
    failure = failure_of(json.dumps(recorded))
    assert failure is not None
    assert (failure.type, failure.message, failure.causes) == ("OutOfStock", "no cups", ("KeyError: 'cup'",))
    assert failure_of(None) is None
    for odd in ("nonsense", "[]", '{"error_type":7}', "[" * 100_000):
        assert failure_of(odd).type == "Error"  # type: ignore[union-attr]
