"""The line that a person has to look at: the user's own, not that of a library, of generated code or of edda."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable

import pytest

from edda.engine import user_line as module
from edda.engine.user_line import user_line, user_line_of

EDDA = module.__file__
LIBRARY = "/venv/lib/python3.11/site-packages/asyncpg/connection.py"
BESIDE_PYTHON = os.path.join(os.path.dirname(os.__file__), "site-packages", "shop", "orders.py")
INSTALLED = "/venv/lib/python3.11/site-packages/shop/orders.py"
STANDARD = os.path.join(os.path.dirname(os.__file__), "json", "decoder.py")
COMPILED = "asyncpg/protocol/protocol.pyx"
GENERATED = "<string>"
USER, USERS_CALLER = "/srv/shop/payments.py", "/srv/shop/orders.py"


@pytest.mark.parametrize(
    ("innermost_first", "told"),
    [
        ([USER, USERS_CALLER, EDDA], USER),
        ([COMPILED, LIBRARY, USER, EDDA], USER),
        ([GENERATED, USER, EDDA], USER),
        ([STANDARD, STANDARD, USER, EDDA], USER),
        ([EDDA, USER, EDDA], USER),
        ([COMPILED, LIBRARY, INSTALLED, EDDA], INSTALLED),
        ([STANDARD, INSTALLED, EDDA], INSTALLED),
        ([STANDARD, BESIDE_PYTHON, EDDA], BESIDE_PYTHON),
        ([STANDARD, EDDA], STANDARD),
        ([GENERATED, STANDARD, EDDA], GENERATED),
        ([EDDA], "an unknown line"),
    ],
)
def test_the_line_of_the_users_own_code(innermost_first: list[str], told: str) -> None:
    line = user_line((file, number) for number, file in enumerate(innermost_first, 1))
    assert line == (told if told == "an unknown line" else f"{told}:{innermost_first.index(told) + 1}")


@dataclasses.dataclass(frozen=True)
class Frozen:
    value: int


def thaw() -> None:
    Frozen(1).value = 2  # type: ignore[misc]


def misread() -> None:
    json.loads("{")


@pytest.mark.parametrize("fails", [thaw, misread])
def test_of_an_error_that_came_about_elsewhere(fails: Callable[[], None]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each raises its own
        fails()
    assert user_line_of(caught.value) == f"{__file__}:{fails.__code__.co_firstlineno + 1}"


class Untraceable(Exception):
    @property
    def __traceback__(self) -> None:  # type: ignore[override]
        raise RuntimeError("no traceback")


def test_of_an_error_that_says_nothing() -> None:
    assert user_line_of(ValueError("never raised")) is None
    assert user_line_of(Untraceable()) is None
