"""The three streams of a process, so that whatever they are, a command can write and a database stays whole.

Closed ones become the null device: a file that is opened later, a database above all, would otherwise get the number 1
or 2, and what anybody writes to these would go into it. What an encoding cannot say is written as in JSON.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from typing import Final

AS_IN_JSON: Final = "edda_as_in_json"


def make_sound() -> None:
    """To be called before anything is opened."""
    codecs.register_error(AS_IN_JSON, _as_in_json)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # by their numbers: the lowest is given out
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=AS_IN_JSON)


def _as_in_json(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
