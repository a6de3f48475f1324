"""What is typed into a form: read as data, drawn again, told what is wrong. By schemas as pydantic makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from edda.parameters import schema_of
from edda.viewer import typed
from edda.viewer.shapes import CHOICES_MAX, DEPTH_MAX, Kind, Shape, shape_of
from edda.viewer.typed import Field, changed, drawn, filled, placed, read
from tests.viewer import shop


def shape_for(hint: Any, *, required: bool = True) -> Shape:
    """Of a workflow with one parameter, `it`."""
    schema = TypeAdapter[Any](hint).json_schema()
    return shape_of({"properties": {"it": schema}, "required": ["it"] if required else []})


def kind_of(hint: Any) -> Kind:
    return shape_for(hint).members[0].kind


def fields(shape: Shape, texts: Mapping[str, str]) -> dict[str, Field]:
    todo, found = [drawn(shape, texts, {})], dict[str, Field]()
    while todo:
        one = todo.pop()
        found[one.path.removeprefix("arguments/")] = one
        todo += one.members
    return found


def delivery() -> Shape:
    schema = schema_of(shop.delivery)
    assert schema is not None
    return shape_of(schema)


# -- shapes ------------------------------------------------------------------------------------------------------------


def test_each_kind_of_parameter_is_asked_for_in_its_own_way() -> None:
    wish, copies, note = delivery().members
    assert (copies.kind, copies.required, copies.default) == (Kind.NUMBER, False, 1)
    assert (note.kind, note.nullable, note.required) == (Kind.TEXT, True, False)
    assert {member.key: member.kind for member in wish.members} == {
        "recipient": Kind.TEXT,
        "day": Kind.DATE,
        "urgency": Kind.CHOICE,
        "quantity": Kind.NUMBER,
        "weight": Kind.NUMBER,
        "price": Kind.WORD,
        "speed": Kind.CHOICE,
        "gift": Kind.GROUP,
        "tags": Kind.LIST,
        "items": Kind.LIST,
        "extra": Kind.JSON,
        "insured": Kind.YES,
        "friendly": Kind.CHOICE,
    }


@pytest.mark.parametrize("hint", [Any, int | str, dict[str, int], tuple[int, str], list[Any] | int, object])
def test_what_no_control_can_say_is_typed_as_json(hint: Any) -> None:
    assert kind_of(hint) is Kind.JSON


class Knot(BaseModel):
    name: str
    knots: list[Knot] = []


def test_a_model_within_itself_ends_as_json() -> None:
    shape = shape_for(Knot).members[0]
    for _ in range(DEPTH_MAX + 2):  # itself, and what is typed as JSON in the end
        if shape.kind is Kind.JSON:
            return
        shape = shape.members[-1]
    raise AssertionError("it goes on and on")


def test_too_many_choices_are_typed() -> None:
    values = [str(n) for n in range(CHOICES_MAX + 1)]
    assert shape_of({"properties": {"it": {"enum": values, "type": "string"}}}).members[0].kind is Kind.TEXT


def test_a_title_that_somebody_wrote_is_the_label() -> None:
    properties = {"how_many": {"type": "integer", "title": "Number of cups"}, "sku": {"type": "string", "title": "Sku"}}
    assert [member.label for member in shape_of({"properties": properties}).members] == ["Number of cups", "sku"]


@pytest.mark.parametrize(
    "schema", [{}, {"properties": 1}, {"properties": {"x": 1}}, {"properties": {"x": {"$ref": 1}}},
               {"properties": {"x": {"anyOf": [1, {"type": "null"}]}}}],
)  # fmt: skip
def test_a_schema_that_is_none_is_a_shape_all_the_same(schema: dict[str, Any]) -> None:
    assert shape_of(schema).kind is Kind.GROUP


# -- reading -----------------------------------------------------------------------------------------------------------

texts_of_people = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
wishes = st.builds(
    shop.Wish,
    recipient=texts_of_people,
    quantity=st.integers(1, 10),
    weight=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    gift=st.none() | st.builds(shop.Gift, text=texts_of_people, wrapped=st.booleans()),
    tags=st.lists(texts_of_people, max_size=4),
    items=st.lists(st.builds(shop.Item, sku=texts_of_people, quantity=st.integers()), max_size=3),
    extra=st.dictionaries(texts_of_people, st.integers(), max_size=3),
)


@settings(deadline=None)
@given(wish=wishes)
def test_what_is_filled_in_is_read_as_it_was(wish: shop.Wish) -> None:
    """A form of any value says that value, when nobody changes a letter."""
    shape = delivery()
    typed_texts = filled(shape, {"wish": wish.model_dump(mode="json"), "copies": 3, "note": "x"})
    reading = read(shape, typed_texts)
    assert reading.problems == {}
    assert shop.Wish.model_validate(reading.value["wish"]) == wish
    assert (reading.value["copies"], reading.value["note"]) == (3, "x")


def test_the_first_form_holds_the_defaults_and_leaves_out_what_has_none() -> None:
    shape = delivery()
    texts = filled(shape)
    assert texts["arguments/copies"] == "1"
    assert texts["arguments/wish/speed"] == "0"
    assert texts["arguments/wish/price"] == "9.90"
    value = read(shape, texts).value
    assert value["wish"]["speed"] == "slow"
    assert value["wish"]["gift"] is None
    assert {"day", "urgency", "items"}.isdisjoint(value["wish"])


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, " 7 ", 7),
        (int, "seven", "seven"),
        (int, "1e999", float("inf")),
        (int, "9" * 5000, "9" * 5000),
        (float, "1.5", 1.5),
        (float, "NaN", "NaN"),
        (str, " 7 ", " 7 "),
        (str, "", ""),
        (str | None, "", None),
        (int | None, "", None),
        (dict[str, int], '{"a": 1}', {"a": 1}),
    ],
)
def test_text_becomes_data_or_stays_text(hint: Any, text: str, value: Any) -> None:
    assert read(shape_for(hint), {"arguments/it": text}).value == {"it": value}


@pytest.mark.parametrize("text", ["2", "-1", "²", "9" * 5000, "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_choice_that_there_is_not_stays_text(text: str) -> None:
    assert read(shape_for(Literal["a", "b"]), {"arguments/it": text}).value == {"it": text}


def test_what_is_left_empty_is_left_out() -> None:
    assert read(shape_for(int), {"arguments/it": ""}).value == {}
    assert read(shape_for(bool), {}).value == {"it": False}


@pytest.mark.parametrize("text", ["{", "nope", "{'a': 1}", "[" * 100_000])
def test_what_is_no_json_is_said_at_its_field(text: str) -> None:
    assert read(shape_for(dict[str, int]), {"arguments/it": text}).problems == {"arguments/it": "This is no JSON"}


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([f"arguments{rest}" for rest in ("", "/it", "/it#", "/it?", "/it/0", "/it/1#")]),
                       st.text(max_size=5), max_size=6))  # fmt: skip
def test_a_form_that_nobody_made_is_read_without_failing(texts: dict[str, str]) -> None:
    for hint in (list[int], list[list[int]], shop.Gift | None, Any, bool | None):
        shape = shape_for(hint)
        read(shape, texts)
        drawn(shape, texts, {})


def test_a_list_has_no_more_rows_than_a_form_can_hold() -> None:
    shape = shape_for(list[int])
    assert len(read(shape, {"arguments/it#": "999"}).value["it"]) == typed.ROWS_MAX
    assert read(shape, {"arguments/it#": "-1"}).value == {"it": []}
    assert changed(shape, {"arguments/it#": str(typed.ROWS_MAX)}, "add:arguments/it") is None


# -- adding and taking away --------------------------------------------------------------------------------------------


def test_rows_are_added_with_defaults_and_taken_away_from_the_middle() -> None:
    shape = delivery()
    texts: Mapping[str, str] | None = filled(shape)
    for place in range(3):
        texts = changed(shape, texts or {}, "add:arguments/wish/items")
        assert texts is not None
        texts = {**texts, f"arguments/wish/items/{place}/sku": f"sku {place}"}
        if place == 0:  # an extra begins without a row
            texts = changed(shape, texts, "add:arguments/wish/items")
            assert texts is not None
            texts = {**texts, "arguments/wish/items/0/sku": "sku 0"}
    assert texts is not None
    texts = changed(shape, texts, "drop:arguments/wish/items/1")
    assert texts is not None
    assert [item["sku"] for item in read(shape, texts).value["wish"]["items"]] == ["sku 0", "sku 2"]


def test_an_extra_comes_with_its_defaults_and_goes_without_a_trace() -> None:
    shape = delivery()
    before = filled(shape)
    there = changed(shape, before, "add:arguments/wish/gift")
    assert there is not None
    assert read(shape, there).value["wish"]["gift"] == {"text": "", "wrapped": True}
    assert changed(shape, there, "drop:arguments/wish/gift") == before


@pytest.mark.parametrize(
    "wish", ["", "add", "add:", "add:x", "add:arguments", "add:arguments/wish/recipient", "drop:arguments/wish/items/7",
             "drop:arguments/wish", "drop:arguments/wish/items/x", "drop:arguments/wish/items/" + "9" * 5000,
             "drop:arguments/wish/items/\N{ARABIC-INDIC DIGIT ZERO}", "other:arguments"],
)  # fmt: skip
def test_a_wish_that_means_nothing_changes_nothing(wish: str) -> None:
    shape = delivery()
    assert changed(shape, filled(shape), wish) is None


def test_names_are_told_apart_whatever_is_in_them() -> None:
    keys = ["a/b", "a#", "a?", "~", "a b", "~1", "0"]
    shape = shape_of({"properties": {key: {"type": "string"} for key in keys}, "required": keys})
    texts = filled(shape, {key: f"of {key}" for key in keys})
    assert read(shape, texts).value == {key: f"of {key}" for key in keys}
    assert len(fields(shape, texts)) == len(keys) + 1


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors_stand_at_the_field_or_at_what_holds_it() -> None:
    shape = delivery()
    errors = placed(
        shape,
        filled(shape),
        [
            (("wish", "day"), "no day"),
            (("wish", "extra", "cups"), "no number"),
            (("wish", "gift", "text"), "no text"),
            (("nothing",), "unexpected"),
            ((), "all of it"),
        ],
    )
    assert errors == {
        "arguments/wish/day": "no day",
        "arguments/wish/extra": "no number",
        "arguments/wish/gift": "no text",
        "arguments": "unexpected; all of it",
    }


@settings(deadline=None)
@given(wishes)
def test_what_was_typed_is_drawn_again(wish: shop.Wish) -> None:
    shape = delivery()
    texts = {name: f"{text} ✎" for name, text in filled(shape, {"wish": wish.model_dump(mode="json")}).items()}
    texts = {name: text.removesuffix(" ✎") if name[-1] in "#?" else text for name, text in texts.items()}
    shown = fields(shape, texts)
    for name, text in texts.items():
        if name[-1] not in "#?":
            assert shown[name.removeprefix("arguments/")].text == text
