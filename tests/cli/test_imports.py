"""A command starts quickly because it imports what it needs, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("edda.app", "edda.engine", "edda.viewer", "pydantic", "sqlalchemy", "httpx2", "rich")
LISTED = "import sys; from edda.cli import main; code = main({words!r}); print('\\0', *sys.modules); sys.exit(code)"


def imported_by(*words: str) -> set[str]:
    """The names of all modules, after this command ran in a process of its own."""
    script = LISTED.format(words=words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.partition("\0")[2].split())


def test_help_imports_no_command_and_no_event_loop() -> None:
    found = imported_by("--help")
    assert "edda.cli.commands" in found
    assert not found & {*HEAVY, "asyncio", "edda.storage", "edda.cli.ls", "edda.cli.run", "edda.cli.opening"}


@pytest.mark.parametrize(
    "words",
    [["ls"], ["ls", "--json"], ["requeue"], ["db", "check"], ["db", "gc", "--older-than", "1d", "--dry-run"]],
    ids=str,
)
def test_looking_at_sqlite_needs_neither_the_engine_nor_any_other_package(words: list[str], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'edda.db'}"
    imported_by("db", "upgrade", "--db", url)
    found = imported_by(*words, "--db", url)
    assert f"edda.cli.{'_'.join(words[: 2 if words[0] == 'db' else 1])}" in found
    assert not found & set(HEAVY)
    commands = {name for name in found if name.startswith("edda.cli.")}
    assert len(commands & {f"edda.cli.{name}" for name in ("ls", "requeue", "db_check", "db_gc", "run", "start")}) == 1
