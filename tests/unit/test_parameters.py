"""Parameters of workflows as schemas, and starts from data by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import Field, ValidationError

from edda import EddaApp, WorkflowContext, workflow
from edda.parameters import schema_of

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypes


class Client:
    """Nothing that JSON can say."""


@workflow(name="parameters.odd")
async def odd(
    ctx: WorkflowContext,
    first,
    /,
    second: OnlyForTypes,
    client: Client = Client(),  # noqa: B008
    *,
    count: int = Field(3, ge=1),
    needed: int = Field(ge=1),
) -> None: ...


@workflow(name="parameters.any")
async def takes_any(ctx: WorkflowContext, *rest: int, **options: Any) -> None: ...


@workflow(name="parameters.in_order")
async def by_position(ctx: WorkflowContext, number: int, /, text: str = "x") -> None: ...


@workflow(name="parameters.broken")
async def broken(ctx: WorkflowContext, x: Annotated[int, Field(json_schema_extra={"x": {"$ref": "y"}})]) -> None: ...


def test_what_pydantic_cannot_describe_is_anything() -> None:
    assert schema_of(broken) == {"type": "object", "properties": {"x": {}}, "required": ["x"]}


def test_whatever_a_signature_holds_it_is_described() -> None:
    assert schema_of(odd) == {
        "type": "object",
        "properties": {
            "first": {},
            "second": {},
            "client": {},
            "count": {"type": "integer", "minimum": 1, "default": 3},
            "needed": {"type": "integer", "minimum": 1},
        },
        "required": ["first", "second", "needed"],
    }


def test_who_takes_anything_has_no_schema() -> None:
    assert schema_of(takes_any) is None


async def test_a_start_from_data_is_validated_and_stores_nothing(tmp_path: Any) -> None:
    app = EddaApp("parameters", f"sqlite:///{tmp_path}/none.db", workflows=[by_position, takes_any])
    new = app.new_instance_of("parameters.in_order", {"number": "7"}, id="seven")
    assert (new.id, new.workflow, new.owner) == ("seven", "parameters.in_order", None)
    assert new.input == '{"args":[7],"kwargs":{"text":"x"}}'
    assert app.new_instance_of("parameters.any", {"a": 1}).input == '{"args":[],"kwargs":{"a":1}}'
    with pytest.raises(ValidationError):
        app.new_instance_of("parameters.in_order", {"number": "seven"})
    with pytest.raises(ValueError, match="1 to 255 characters"):
        app.new_instance_of("parameters.in_order", {"number": 7}, id="")
    with pytest.raises(KeyError):
        app.parameters_of("parameters.odd")
    assert not (tmp_path / "none.db").exists()
