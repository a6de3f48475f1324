"""`import edda` is cheap: no SQLAlchemy, no HTTP client, no database driver, and not even pydantic."""

import subprocess
import sys

HEAVY = ("aiosqlite", "asyncmy", "asyncpg", "httpx2", "pydantic", "sqlalchemy", "sqlite3")


def loaded_by(code: str) -> list[str]:
    program = f"import sys; {code}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return output.stdout.split()


def test_importing_edda_loads_nothing_heavy() -> None:
    assert loaded_by("import edda") == []


def test_an_app_brings_the_codec_but_no_database() -> None:
    assert loaded_by("from edda import EddaApp; EddaApp()") == ["pydantic"]
