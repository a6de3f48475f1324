"""A role of a database server that may SELECT on edda's tables, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy.engine import make_url

from tests.viewer import statements as statements_of

PASSWORD = "only-looking"


@contextlib.contextmanager
def looker(url: str) -> Iterator[str]:
    """The URL of the same database for a role that may only look; it goes at the end."""
    owner = make_url(url)
    role = f"edda_looker_{os.getpid()}"
    grants = _GRANTS[owner.get_backend_name()]
    execute(url, [statement.format(role=role, database=owner.database) for statement in grants.give])
    try:
        yield owner.set(username=role, password=PASSWORD).render_as_string(hide_password=False)
    finally:
        execute(url, [statement.format(role=role, database=owner.database) for statement in grants.take])


class _PostgreSQL:
    give = (
        f"CREATE ROLE {{role}} LOGIN PASSWORD '{PASSWORD}'",
        "GRANT USAGE ON SCHEMA public TO {role}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    )
    take = ("DROP OWNED BY {role}", "DROP ROLE {role}")


class _MySQL:
    give = (
        f"CREATE USER {{role}} IDENTIFIED BY '{PASSWORD}'",
        "GRANT SELECT ON {database}.* TO {role}",
    )
    take = ("DROP USER {role}",)


_GRANTS: dict[str, Any] = {"postgresql": _PostgreSQL, "mysql": _MySQL}


def execute(url: str, statements: list[str]) -> None:
    """In a thread of its own, so that any fixture may call it."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, statements_of.execute(url, [(statement, {}) for statement in statements])).result()
