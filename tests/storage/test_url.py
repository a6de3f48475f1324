"""Every spelling of a database URL."""

from __future__ import annotations

import pytest

from edda.exceptions import MissingExtraError, StorageError
from edda.storage.sql import open_store
from edda.storage.sql.url import parse, without_secrets


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("sqlite:///orders.db", "orders.db"),
        ("sqlite:////var/lib/orders.db", "/var/lib/orders.db"),
        ("sqlite+aiosqlite:///orders%20of%20today.db", "orders of today.db"),
    ],
)
def test_sqlite_paths(url: str, path: str | None) -> None:
    parsed = parse(url)
    assert (parsed.kind, parsed.database) == ("sqlite", path)


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [
        ("postgresql", "postgresql"),
        ("postgres", "postgresql"),
        ("postgresql+asyncpg", "postgresql"),
        ("mysql", "mysql"),
        ("mariadb", "mysql"),
        ("mysql+asyncmy", "mysql"),
        ("mysql+aiomysql", "mysql"),
    ],
)
def test_servers_by_all_their_names(scheme: str, kind: str) -> None:
    parsed = parse(f"{scheme}://me:p%40ss%2F@db.example:5555/orders?pgbouncer=1&schema=edda&ssl=true")
    assert parsed.kind == kind
    assert (parsed.user, parsed.password, parsed.host, parsed.port) == ("me", "p@ss/", "db.example", 5555)
    assert (parsed.database, parsed.pgbouncer, parsed.schema) == ("orders", True, "edda")
    assert parsed.driver_options == {"ssl": "true"}
    driver = "postgresql+asyncpg" if kind == "postgresql" else "mysql+asyncmy"
    assert parsed.sqlalchemy == f"{driver}://me:p%40ss%2F@db.example:5555/orders?ssl=true"


def test_parts_that_are_not_there() -> None:
    parsed = parse("postgresql://localhost")
    assert (parsed.user, parsed.password, parsed.port, parsed.database) == (None, None, None, None)
    assert parse("postgresql:///orders?host=/run/postgresql").host is None
    assert parse("postgresql://[::1]:5433/orders").host == "::1"


@pytest.mark.parametrize(
    "url",
    [
        "oracle://db/x",
        "orders.db",
        "sqlite://orders.db",
        "mysql://db:port/x",
        "",
        "postgresql://db/x?schema=a&pgbouncer=1",
    ],
)
def test_what_cannot_be_used_is_said_at_once(url: str) -> None:
    with pytest.raises(StorageError):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("sqlite:///x.db?mode=ro", r"\?mode="),
        ("sqlite+aiosqlite:///x.db?timeout=5&cache=shared", r"\?timeout=, \?cache="),
        ("sqlite://?schema=a", r"\?schema="),
        ("sqlite:///x.db?immutable", r"\?immutable="),
    ],
)
def test_sqlite_has_no_options_and_heeds_none_in_silence(url: str, named: str) -> None:
    with pytest.raises(StorageError, match=f"has no options, and this one has {named};"):
        parse(url)
    assert parse("sqlite:///what%3F.db").database == "what?.db"


@pytest.mark.parametrize(("url", "extra"), [("postgresql://db/x", "postgresql"), ("mariadb://db/x", "mysql")])
def test_a_missing_driver_names_what_to_install(monkeypatch: pytest.MonkeyPatch, url: str, extra: str) -> None:
    monkeypatch.setattr("edda.storage.sql.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=rf"edda-framework\[{extra}\]"):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///edda.db", "sqlite:///edda.db"),
        ("sqlite:////srv/a:b.db", "sqlite:////srv/a:b.db"),
        ("postgresql://db/shop", "postgresql://db/shop"),
        ("postgresql://ann@db:5432/shop", "postgresql://ann@db:5432/shop"),
        ("postgresql://ann:SECRET@db:5432/shop", "postgresql://ann@db:5432/shop"),
        ("postgresql://ann:SECRET@[::1]:5432/shop", "postgresql://ann@[::1]:5432/shop"),
        ("postgresql://ann@db/shop?password=SECRET&sslmode=require", "postgresql://ann@db/shop"),
        # These were not quoted as URLs want it.
        ("postgresql://ann:SEC/RET@db/shop", "postgresql://ann@db/shop"),
        ("postgresql://ann:SEC@RET@db/shop", "postgresql://ann@db/shop"),
        ("postgresql://ann:SEC?RET@db/shop", "postgresql://ann"),
        ("postgresql://db/shop?password=SEC@RET", "postgresql://db/shop"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_database_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize("password", ["SEC/RET", "SEC?RET"])
def test_a_password_that_is_not_quoted_is_explained_and_not_shown(password: str) -> None:
    with pytest.raises(StorageError, match="is no number; in a password, write / as %2F") as caught:
        parse(f"postgresql://ann:{password}@db/shop")
    assert "SEC" not in str(caught.value)
    assert "RET" not in str(caught.value)
