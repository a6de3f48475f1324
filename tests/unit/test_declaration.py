"""Declaring: what could never be called with the context is refused at once, and what cannot be decided passes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from pydantic import BaseModel

from edda import WorkflowContext
from edda.core.declaration import check_function, known_type


class Order(BaseModel):
    id: str


@dataclass
class Item:
    id: str


class AnyContext(Protocol):
    instance_id: str


class MyContext(WorkflowContext):
    pass


def annotated(annotation: Any) -> Callable[..., Any]:
    def charge(first: Any, amount: int) -> None: ...

    charge.__annotations__["first"] = annotation
    return charge


@pytest.mark.parametrize(
    "annotation",
    [
        *(str, int, float, bool, bytes, dict, list, tuple, set, None, list[int], dict[str, int], Order, Item),
        *("str", "None", "list[int]", "dict[str, int]", "Order", "Item"),
    ],
)
def test_a_first_parameter_that_is_plainly_not_the_context_is_refused(annotation: Any) -> None:
    with pytest.raises(
        TypeError, match=r"activity charge\(\) has to take the context first.*'first' is annotated with"
    ):
        check_function("activity", annotated(annotation))


@pytest.mark.parametrize(
    "annotation",
    [
        *(WorkflowContext, MyContext, Any, object, AnyContext, str | None),
        *(
            "WorkflowContext",
            "Any",
            "AnyContext",
            "edda.WorkflowContext",
            "NotImported",
            "list[int] | dict[str, int]",
            "(",
        ),
    ],
)
def test_any_other_first_parameter_passes(annotation: Any) -> None:
    check_function("activity", annotated(annotation))


def test_without_annotations_everything_passes() -> None:
    check_function("workflow", lambda ctx, order_id: None)
    check_function("workflow", lambda *args: None)


class Shop:
    async def charge(self, ctx: WorkflowContext) -> None: ...


async def nothing() -> None: ...
async def by_name(*, ctx: WorkflowContext) -> None: ...


async def numbers(ctx: WorkflowContext) -> Any:
    yield 1


def more_numbers(ctx: WorkflowContext) -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Shop.charge, r"activity Shop.charge\(\) is a method.*'self'.*outside of the class"),
        (nothing, r"activity nothing\(\) takes no context"),
        (by_name, r"activity by_name\(\) takes no context"),
        (numbers, r"activity numbers\(\) yields.*return them"),
        (more_numbers, r"activity more_numbers\(\) yields"),
    ],
)
def test_what_could_never_run_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_function("activity", function)


def test_a_bound_method_is_a_function() -> None:
    check_function("activity", Shop().charge)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [("dict[str, int]", dict), ("Order", Order), (list[int], list), (None, type(None)), ("Nowhere", None)],
)
def test_the_class_that_an_annotation_means(annotation: Any, expected: type | None) -> None:
    assert known_type(annotation, nothing) is expected
