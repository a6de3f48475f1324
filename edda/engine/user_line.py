"""The line of the user's own code that a person has to look at, out of a stack that others have their frames in."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable

_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
_EDDA = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SITE_PACKAGES = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)


def user_line(innermost_first: Iterable[tuple[str, int]]) -> str:
    """`file:line` of the innermost place of the user's own; libraries count only if nothing else is there."""
    library: str | None = None
    for file, line in innermost_first:
        if file.startswith(_EDDA):
            continue
        installed = any(folder in file for folder in _SITE_PACKAGES)
        if not installed and not file.startswith((_STANDARD_LIBRARY, "<frozen ")):
            return f"{file}:{line}"
        library = library or f"{file}:{line}"
    return library or "an unknown line"


def user_line_of(error: BaseException) -> str | None:
    """Where in the user's code an error came about; None if it was not raised."""
    outermost_first = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return user_line(reversed(outermost_first)) if outermost_first else None
