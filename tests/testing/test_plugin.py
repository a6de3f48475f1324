"""The pytest plugin: a fixture and a marker that are there as soon as edda is installed, and cost nothing else."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

WORKFLOWS = """
import asyncio
import pytest
from datetime import datetime
from edda import EddaApp, WorkflowContext, activity, sleep, workflow

@activity(name="plugin.add")
async def add(ctx: WorkflowContext, number: int) -> int:
    return number + 1

@workflow(name="plugin.long")
async def long(ctx: WorkflowContext) -> int:
    await sleep(ctx, 86_400)
    return await add(ctx, 1)
"""


WITHOUT = [part for plugin in ("xdist", "schemathesis", "hypothesispytest", "cov") for part in ("-p", f"no:{plugin}")]


def run(pytester: pytest.Pytester, body: str, *options: str, mode: str = "auto") -> pytest.RunResult:
    pytester.makepyfile(WORKFLOWS + body)
    if mode:
        options = (*options, "-o", f"asyncio_mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function")
    return pytester.runpytest_subprocess("-W", "error", *WITHOUT, *options)


def test_it_is_registered_under_its_name() -> None:
    (found,) = entry_points(group="pytest11", name="edda")
    assert found.value == "pytest_edda"


def test_an_async_test_gets_an_app_that_ends_with_it(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        async def test_it(edda_app):
            handle = await edda_app.start(long)
            assert await handle.result() == 2

        class TestInAClass:
            async def test_it(self, edda_app, tmp_path):
                assert await (await long.start()).result() == 2
        """.replace("\n        ", "\n"),
    )
    outcome.assert_outcomes(passed=2)


def test_it_needs_no_automatic_mode(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        @pytest.mark.asyncio
        @pytest.mark.parametrize("times", [1, 2])
        async def test_it(edda_app, times):
            assert await (await edda_app.start(long)).result() == 2
        """.replace("\n        ", "\n"),
        mode="strict",
    )
    outcome.assert_outcomes(passed=2)


def test_it_works_under_anyio(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_it(edda_app):
            assert await (await edda_app.start(long)).result() == 2
        """.replace("\n        ", "\n"),
        "-p",
        "no:asyncio",
        mode="",
    )
    outcome.assert_outcomes(passed=1)


def test_a_synchronous_test_begins_and_ends_it_itself(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        async def main(edda_app):
            async with edda_app:
                return await (await edda_app.start(long)).result()

        def test_it(edda_app):
            assert asyncio.run(main(edda_app)) == 2

        def test_it_is_not_even_begun(edda_app):
            assert not edda_app.running
        """.replace("\n        ", "\n"),
    )
    outcome.assert_outcomes(passed=2)


def test_the_marker_says_how_the_app_is_made(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        pytestmark = pytest.mark.edda(start_at=datetime(2030, 1, 1), broker=True)

        @pytest.mark.edda(start_at=datetime(2040, 1, 1))
        async def test_the_nearest_counts(edda_app):
            assert edda_app.clock.now().year == 2040
            assert edda_app.broker_url is not None

        async def test_the_module_counts(edda_app):
            assert edda_app.clock.now().year == 2030

        @pytest.mark.edda("2040")
        async def test_names_are_needed(edda_app):
            pass
        """.replace("\n        ", "\n"),
        "--strict-markers",
    )
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.stdout.fnmatch_lines(["*takes keyword arguments only*"])


def test_a_failing_test_fails_and_its_app_ends(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
        async def test_it(edda_app):
            await edda_app.start(long)
            assert False, "as planned"
        """.replace("\n        ", "\n"),
    )
    outcome.assert_outcomes(failed=1)
    assert "was not shut down" not in outcome.stdout.str()


def test_nothing_of_edda_is_imported_where_no_test_asks_for_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "pytest_edda" in sys.modules
            assert not [name for name in sys.modules if name.split(".")[0] in ("edda", "pydantic", "sqlalchemy")]
        """
    )
    outcome = pytester.runpytest_subprocess(*WITHOUT, "-p", "no:asyncio")
    outcome.assert_outcomes(passed=1)


def test_the_package_of_tests_needs_no_pytest() -> None:
    program = "import sys; sys.modules['pytest'] = None; import edda.testing"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
