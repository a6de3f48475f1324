"""A database for each test, and the command line in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edda import EddaApp
from edda.cli import main
from tests.cli.programs import approval, order, shipping, sold_out

PROGRAMS = "tests.cli.programs"
SERVICE = "tests.cli.service"


@dataclass
class Said:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database without tables, which commands find by the variable."""
    found = f"sqlite:///{tmp_path / 'edda.db'}"
    monkeypatch.setenv("EDDA_DATABASE_URL", found)
    return found


@pytest.fixture
def edda(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, outside of any event loop."""

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


@pytest.fixture
async def app(url: str) -> AsyncIterator[EddaApp]:
    app = EddaApp("cli", db_url=url, workflows=[order, shipping, approval, sold_out], poll_seconds=0.05)
    async with app:
        yield app
