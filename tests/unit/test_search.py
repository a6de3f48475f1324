"""Terms: equal values of a field have the same, and nothing that can be started fails for lack of one."""

from __future__ import annotations

import pytest

from edda.core.search import SearchField, term_of, terms_of
from edda.storage.reads import has_argument, needle_of

NUMBER = SearchField("number", 0)


def test_equal_values_have_equal_terms_and_others_do_not() -> None:
    assert term_of("w", "number", 1) == term_of("w", "number", 1.0)
    different = [term_of("w", "number", value) for value in (1, True, "1", None, 1.5)]
    different += [term_of("w", "n", 1), term_of("v", "number", 1)]
    assert len(set(different)) == len(different)
    assert None not in different


@pytest.mark.parametrize("value", [[1], {"a": 1}, float("nan")])
def test_what_is_no_scalar_has_no_term(value: object) -> None:
    assert term_of("w", "number", value) is None


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ('{"args":[],"kwargs":{"number":7}}', 7),
        ('{"args":[7],"kwargs":{}}', 7),
        ('{"args":[],"kwargs":{}}', None),
        ('{"args":[],"kwargs":{"number":[7]}}', None),
        ('{"args":[],"kwargs":{"number":' + "9" * 5000 + "}}", None),
    ],
    ids=["by name", "by position", "left out", "a list", "too long to be read"],
)
def test_a_value_is_found_however_it_was_passed(recorded: str, expected: object) -> None:
    wanted = () if expected is None else (term_of("w", "number", expected),)
    assert terms_of("w", recorded, [NUMBER]) == wanted


@pytest.mark.parametrize("place", ["²", "٣", "9" * 5000])
def test_what_looks_like_a_number_and_names_no_element_is_found_nowhere(place: str) -> None:
    recorded = '{"args":[[1,2,3,4]],"kwargs":{}}'
    assert terms_of("w", recorded, [SearchField(f"number.{place}", 0)]) == ()
    assert not has_argument(recorded, f"0.{place}", 1)
    assert not has_argument(recorded, place, 1)


def test_half_a_character_is_looked_for_as_json_can_say_it() -> None:
    assert needle_of("\ud800ä") == '"\\ud800\\u00e4"'
    assert needle_of("ä") == '"ä"'


def test_paths_lead_into_objects_and_lists() -> None:
    recorded = '{"args":[],"kwargs":{"order":{"lines":[{"sku":"a"},{"sku":"b"}]}}}'
    fields = [SearchField("order.lines.1.sku", 0)]
    assert terms_of("w", recorded, fields) == (term_of("w", "order.lines.1.sku", "b"),)
