"""The pytest plugin of edda: the fixture `edda_app` and the marker `edda`. See docs/how-to/testing.md.

It is loaded by every run of pytest in an environment that has edda, so it imports nothing of edda before a test asks
for the fixture. It knows no plugin for asynchronous tests: it ends the app at the end of the test function itself, in
whatever event loop that runs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edda.testing import InMemoryApp

MARKER = "edda(**options): how the fixture edda_app is made: the arguments of edda.testing.InMemoryApp"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def edda_app(request: pytest.FixtureRequest) -> Iterator[InMemoryApp]:
    """An `edda.testing.InMemoryApp`, begun before the test function and shut down when that ends.

    A test that is no `async def` begins and ends it itself, with `async with edda_app:`.
    """
    from edda.testing import InMemoryApp

    app = InMemoryApp(**_options(request))
    test: Any = request.node
    function = test.obj
    if inspect.iscoroutinefunction(function):
        test.obj = _within(app, function)
    yield app
    test.obj = function


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Of the marker of the test, then of its class and module: the nearest counts."""
    options: dict[str, Any] = {}
    for marker in request.node.iter_markers("edda"):
        if marker.args:
            raise pytest.UsageError("the marker edda takes keyword arguments only: those of edda.testing.InMemoryApp")
        options = {**marker.kwargs, **options}
    return options


def _within(app: InMemoryApp, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        async with app:
            return await function(*args, **kwargs)

    return run
