"""What a database URL says, in every spelling that people use for it. It imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode

from edda.exceptions import StorageError

Kind = Literal["sqlite", "postgresql", "mysql"]

KINDS: Final[Mapping[str, Kind]] = {
    "sqlite": "sqlite",
    "sqlite+aiosqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "postgresql+asyncpg": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "mysql+asyncmy": "mysql",
    "mariadb+asyncmy": "mysql",
    "mysql+aiomysql": "mysql",
    "mariadb+aiomysql": "mysql",
}
DRIVERS: Final[Mapping[Kind, str]] = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+asyncmy",
}
_OURS: Final = frozenset({"schema", "pgbouncer"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """A URL taken apart. `database` is the path on SQLite, None where the database is in memory."""

    kind: Kind
    user: str | None
    password: str | None
    host: str | None
    port: int | None
    database: str | None
    options: Mapping[str, str]

    @property
    def schema(self) -> str | None:
        """PostgreSQL: the schema of our tables (`?schema=`)."""
        return self.options.get("schema")

    @property
    def pgbouncer(self) -> bool:
        """A pooler stands before PostgreSQL (`?pgbouncer=1`): nothing may depend on the session."""
        return self.options.get("pgbouncer", "0") not in ("0", "", "false")

    @property
    def driver_options(self) -> dict[str, str]:
        """The options that are not ours."""
        return {name: value for name, value in self.options.items() if name not in _OURS}

    @property
    def sqlalchemy(self) -> str:
        """The same place for SQLAlchemy, with the driver that edda uses."""
        return self._spelled(DRIVERS[self.kind])

    @property
    def dsn(self) -> str:
        """The same place for a driver that reads URLs."""
        return self._spelled(self.kind)

    def _spelled(self, scheme: str) -> str:
        if self.kind == "sqlite":
            return f"{scheme}:///{self.database or ':memory:'}"
        password = f":{quote(self.password, safe='')}" if self.password is not None else ""
        user = f"{quote(self.user, safe='')}{password}@" if self.user is not None else ""
        host = self.host or ""
        host = f"[{host}]" if ":" in host else host
        port = f":{self.port}" if self.port is not None else ""
        options = f"?{urlencode(self.driver_options)}" if self.driver_options else ""
        return f"{scheme}://{user}{host}{port}/{quote(self.database or '', safe='')}{options}"


def parse(url: str) -> DatabaseUrl:
    """Take a URL apart. Raises `StorageError` for one that edda has no storage for."""
    scheme, separator, rest = url.partition("://")
    kind = KINDS.get(scheme.lower())
    if not separator or kind is None:
        raise StorageError(
            f"edda cannot store anything in a database of the kind '{scheme}'; "
            "use sqlite:///file.db, postgresql://user@host/database or mysql://user@host/database"
        )
    rest, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    place, slash, database = rest.partition("/")
    database = unquote(database)
    if kind == "sqlite":
        if place:
            raise StorageError(f"'{url}' has two slashes where SQLite has three (relative) or four (absolute path)")
        if options:  # a driver of a server has options of its own; here nobody would heed them
            raise StorageError(
                f"A SQLite URL has no options, and this one has {', '.join(f'?{name}=' for name in options)}; "
                "in the name of a file, write ? as %3F"
            )
        path = None if database in ("", ":memory:") else database
        return DatabaseUrl(kind=kind, user=None, password=None, host=None, port=None, database=path, options=options)
    user, at, address = place.rpartition("@")
    name, colon, password = user.partition(":")
    host, port = _host_and_port(address, url)
    return DatabaseUrl(
        kind=kind,
        user=unquote(name) if at else None,
        password=unquote(password) if colon else None,
        host=host,
        port=port,
        database=database if slash and database else None,
        options=options,
    )


def without_secrets(url: str) -> str:
    """The URL without its password, well quoted or not, and without options, which may have one, too."""
    scheme, separator, rest = url.partition("?")[0].partition("://")
    user, at, address = rest.rpartition("@")
    shown = re.fullmatch(r"(\[[^\]]*\]|[^:/]*)(:\d+(?=/|$))?[^/]*(/.*)?", address)
    return f"{scheme}{separator}{user.partition(':')[0]}{at}{''.join(shown.groups('') if shown else ())}"


def _host_and_port(address: str, url: str) -> tuple[str | None, int | None]:
    if address.startswith("["):  # IPv6
        host, _, port = address[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = address.partition(":")
    if port and not port.isdigit():
        # What follows is not shown: it may be a piece of a password.
        raise StorageError(
            f"The port in the database URL {url.partition('://')[0]}://… is no number; "
            "in a password, write / as %2F, ? as %3F and @ as %40"
        )
    return unquote(host) or None, int(port) if port else None
