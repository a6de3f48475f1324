"""Promises R1-R15: the package and its metadata. Dependencies are those of this project, not the reference's."""

import ast
import contextlib
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    entry_points,
    packages_distributions,
)
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import edda
from edda import (
    RetryPolicy,
    TerminalError,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    send_event,
    send_event_transactional,
    wait_event,
    wait_timer,
    workflow,
)
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import SOON, Tables, on_mysql, on_postgresql

ROOT = Path(edda.__file__).parents[1]
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def package() -> Distribution:
    return distribution("edda-framework")


def required(package: Distribution, *extras: str) -> set[str]:
    """Names of the packages that an installation with these extras brings directly."""
    names: set[str] = set()
    for line in package.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras or ("",)
        ):
            names.add(canonicalize_name(requirement.name))
    return names


def everything_below(names: set[str]) -> set[str]:
    """These packages and all that they need, without extras."""
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            with contextlib.suppress(PackageNotFoundError):
                names |= required(distribution(name))
    return found


def brought_by(package: Distribution, extra: str) -> set[str]:
    return required(package, extra) - required(package)


def test_R001_the_distribution_is_edda_framework_and_the_import_is_edda(package: Distribution) -> None:
    assert (package.metadata["Name"], package.version) == ("edda-framework", "0.1.0")
    assert edda.__version__ == package.version
    assert package.metadata["Summary"] == "Lightweight Durable Execution Framework"


def test_R002_the_licence_is_mit_and_comes_with_the_package(package: Distribution) -> None:
    assert package.metadata["License-Expression"] == "MIT"
    shipped = [file for file in package.files or () if file.name == "LICENSE" and ".dist-info" in str(file)]
    assert shipped
    assert "MIT License" in shipped[0].read_text()


def test_R003_python_3_11_to_3_14_alpha_and_typed(package: Distribution) -> None:
    assert package.metadata["Requires-Python"] == ">=3.11"
    classifiers = package.metadata.get_all("Classifier") or []
    for version in ("3.11", "3.12", "3.13", "3.14"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert "Development Status :: 3 - Alpha" in classifiers
    assert (Path(edda.__file__).parent / "py.typed").exists()


DURABLE_ORDER = """
    @activity
    async def charge(ctx: WorkflowContext) -> str:
        note("charged")
        return "charged"

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        return await charge(ctx)

    async def main():
        async with EddaApp(db_url=DB_URL) as app:
            if ROUND == 1:
                await order.options(id="order-1").start()
            say(await app.handle("order-1").result(timeout=20))
"""


@pytest.mark.process
def test_R004_a_plain_install_runs_on_sqlite(package: Distribution, program: Callable[[str], Program]) -> None:
    assert "aiosqlite" in required(package)
    without_extras = "".join(
        f"    sys.modules['{name}'] = None\n" for name in ("asyncpg", "asyncmy", "uvicorn", "jinja2")
    )
    plain = program(without_extras + DURABLE_ORDER)
    assert plain.run() == ["charged"]
    assert plain.run() == ["charged"]
    assert plain.notes == ["charged"]


@pytest.mark.process
def test_R005_the_core_dependencies_are_few_and_nothing_else_is_imported(
    package: Distribution, program: Callable[[str], Program]
) -> None:
    assert required(package) == {"pydantic", "sqlalchemy", "aiosqlite", "httpx2"}
    assert "asyncio" in next(Requirement(line) for line in package.requires or () if "sqlalchemy" in line).extras
    order = program(DURABLE_ORDER + '            say(sorted({name.partition(".")[0] for name in sys.modules}))\n')
    order.run()
    names = ast.literal_eval(order.run()[-1])
    owners = packages_distributions()
    distributions = {canonicalize_name(dist) for name in names for dist in owners.get(name, [])}
    assert distributions - {"edda-framework", "setuptools"} <= everything_below(required(package) | {"greenlet"})


@pytest.mark.process
@on_postgresql
def test_R006_postgresql_needs_its_extra_and_the_error_names_it(
    package: Distribution, program: Callable[[str], Program]
) -> None:
    assert brought_by(package, "postgresql") == {"asyncpg"}
    complaint = program("    sys.modules['asyncpg'] = None\n" + COMPLAINING)
    assert "edda-framework[postgresql]" in complaint.run()[0]


@pytest.mark.process
@on_mysql
def test_R007_mysql_needs_its_extra_and_the_error_names_it(
    package: Distribution, program: Callable[[str], Program]
) -> None:
    assert brought_by(package, "mysql") == {"asyncmy"}
    complaint = program("    sys.modules['asyncmy'] = None\n" + COMPLAINING)
    assert "edda-framework[mysql]" in complaint.run()[0]


COMPLAINING = """
    async def main():
        try:
            async with EddaApp(db_url=DB_URL):
                pass
        except ImportError as error:
            say(str(error).replace("\\n", " "))
"""


def test_R008_the_viewer_extra_brings_starlette_and_jinja2(package: Distribution) -> None:
    assert {"starlette", "jinja2"} <= brought_by(package, "viewer")


def test_R009_the_server_extra_brings_uvicorn(package: Distribution) -> None:
    assert brought_by(package, "server") == {"uvicorn"}


def installed_bytes(names: set[str]) -> int:
    """Of all files of these distributions, bytecode left out: that is made on the user's machine."""
    return sum(_bytes_of(distribution(name)) for name in names)


def _bytes_of(package: Distribution) -> int:
    if canonicalize_name(package.metadata["Name"]) == "edda-framework":  # here it is installed as a link to its sources
        files = [*(ROOT / "edda").rglob("*"), ROOT / "pytest_edda.py"]
    else:
        files = [Path(str(file.locate())) for file in package.files or ()]
    return sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")


def test_a_plain_install_is_15_distributions_and_31_mebibytes_at_most(package: Distribution) -> None:
    base = everything_below(required(package) | {"edda-framework", "greenlet"})
    assert {"edda-framework", "sqlalchemy", "pydantic-core"} <= base
    assert len(base) <= 15, sorted(base)
    assert 20 * MEBIBYTE < installed_bytes(base) <= 31 * MEBIBYTE


def test_the_viewer_adds_5_megabytes_at_most(package: Distribution) -> None:
    base = everything_below(required(package) | {"edda-framework", "greenlet"})
    added = everything_below(brought_by(package, "viewer")) - base
    assert {"starlette", "jinja2", "uvicorn", "markupsafe"} <= added
    assert installed_bytes(added) <= 5_000_000


def test_R010_the_dev_extra_brings_what_tests_and_checks_need(package: Distribution) -> None:
    assert {"pytest", "pytest-asyncio", "pytest-cov", "ruff", "mypy"} <= brought_by(package, "dev")


def test_R011_extras_can_be_combined_and_a_git_url_can_be_installed(package: Distribution) -> None:
    both = required(package, "postgresql", "mysql", "viewer")
    assert both == required(package, "postgresql") | required(package, "mysql") | required(package, "viewer")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["build-system"]["build-backend"] == "hatchling.build"
    assert project["project"]["name"] == "edda-framework"


def test_R012_a_console_script_is_declared_and_can_be_imported(package: Distribution) -> None:
    (script,) = entry_points(group="console_scripts", name="edda")
    assert callable(script.load())


def test_R013_one_command_tests_a_clone(package: Distribution) -> None:
    script = (ROOT / "run").read_text()
    assert re.search(r"^#   test ", script, re.MULTILINE)
    assert "pytest-cov" in required(package, "dev")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert settings["pytest"]["ini_options"]["testpaths"] == ["tests"]
    assert "edda" in settings["coverage"]["run"]["source_pkgs"]


@pytest.mark.process
def test_R014_public_names_have_the_import_paths_of_the_reference(program: Callable[[str], Program]) -> None:
    imports = """
    from edda.activity import activity
    from edda.app import EddaApp
    from edda.compensation import compensation, on_failure, register_compensation
    from edda.context import WorkflowContext
    from edda.events import ReceivedEvent, send_event, send_event_transactional, wait_event, wait_timer
    from edda.exceptions import RetryExhaustedError, TerminalError, WorkflowCancelledException
    from edda.hooks import HooksBase, WorkflowHooks
    from edda.retry import DEFAULT_RETRY_POLICY, RetryExhaustedError, RetryPolicy
    from edda.workflow import workflow
    """
    order = program(imports + DURABLE_ORDER)
    assert order.run() == ["charged"]
    assert order.run() == ["charged"]


async def test_R015_every_name_of_the_readme_is_imported_from_edda_and_works(apps: Apps, tables: Tables) -> None:
    log: list[str] = []

    @compensation
    async def undo(ctx: WorkflowContext) -> None:
        log.append("undone")

    @activity(retry_policy=RetryPolicy(max_attempts=1))
    @on_failure(undo)
    async def do(ctx: WorkflowContext) -> str:
        return await send_event_transactional(ctx, "done", "test", {})

    @workflow
    async def all_of_it(ctx: WorkflowContext) -> None:
        await do(ctx)
        await wait_timer(ctx, duration_seconds=0)
        raise TerminalError("enough")

    await apps.open()
    handle = await all_of_it.start()
    with pytest.raises(TerminalError):
        await handle.result(timeout=SOON)
    assert log == ["undone"]
    assert [row["type"] for row in await tables.outbox()] == ["done"]
    assert callable(wait_event)
    assert callable(send_event)
    assert set(edda.__all__) <= vars(edda).keys()
