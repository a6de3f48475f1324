"""The line of the user's own code that a person has to look at, out of a stack that others have their frames in."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable

_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
_EDDA = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SITE_PACKAGES = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)


def user_line(innermost_first: Iterable[tuple[str, int]]) -> str:
    """`file:line` of the innermost place of the user's own.

    Where all of it is installed, as in most containers, nobody can tell the user's package from the libraries under
    it: then it is the outermost, which is what edda called. The standard library counts only if nothing else is there.
    """
    outermost_installed: str | None = None
    anything: str | None = None
    for file, line in innermost_first:
        if file.startswith(_EDDA):
            continue
        place = f"{file}:{line}"
        anything = anything or place
        if not os.path.isabs(file):
            continue  # made at run time ("<string>"), or compiled somewhere else ("asyncpg/protocol/protocol.pyx")
        if any(folder in file for folder in _SITE_PACKAGES):  # which lie within the standard library, if in no venv
            outermost_installed = place
        elif not file.startswith(_STANDARD_LIBRARY):
            return place
    return outermost_installed or anything or "an unknown line"


def user_line_of(error: BaseException) -> str | None:
    """Where in the user's code an error came about; None if it was not raised, or does not say."""
    try:
        outermost_first = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    except Exception:  # a class of the user's that does something else when it is asked for its traceback
        return None
    return user_line(reversed(outermost_first)) if outermost_first else None
