"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import json
import os
import re
from datetime import UTC, datetime
from typing import Any, Final

from edda.cli.failures import Usage

VARIABLE: Final = "EDDA_DATABASE_URL"
DEFAULT_URL: Final = "sqlite:///edda.db"
UNITS: Final = {"ms": 1_000, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6, "w": 7 * 86400 * 10**6}


def with_database(parser: argparse.ArgumentParser, *, first: str = "") -> None:
    """`first`: where the command looks before it looks where all of them look."""
    default = f"{first}, else {VARIABLE}" if first else VARIABLE
    parser.add_argument("--db", metavar="URL", help=f"the database; default: {default}, else {DEFAULT_URL}")


def with_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def url_of(options: argparse.Namespace) -> str:
    """The database of a command."""
    return options.db or os.environ.get(VARIABLE) or DEFAULT_URL


def duration_us(text: str) -> int:
    """`90s`, `15m`, `2h`, `30d`, `1w` in microseconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 15m, 2h, 30d or 1w")
    us = round(float(found[1]) * UNITS[found[2]])
    if us > 10**16:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than 300 years")
    return us


def limit(most: int) -> Any:
    """A number of rows."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 0 < int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {most}")
        return int(text)

    return read


def moment_us(text: str, *, now_us: int) -> int:
    """A duration before now, or a date and time in ISO 8601 (UTC, where it names no zone)."""
    try:
        return now_us - duration_us(text)
    except argparse.ArgumentTypeError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(f"{text!r} is no time; write how long ago (2h, 30d) or 2026-11-23T14:00") from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return round(at.timestamp() * 1_000_000)


def json_or_text(text: str) -> Any:
    """JSON where it is that, else the text itself: `n=3` is a number, `id=ORD-3` a string."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    return name, value
