"""What somebody else wrote, made fit to stand in a line of ours: in a log, in a list, in a column for people."""

from __future__ import annotations


def one_line(text: str, *, chars_max: int) -> str:
    """Cut, and with a blank for each character that cannot be printed: no database and no terminal minds it."""
    cut = text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"
    if cut.isprintable():
        return cut
    return "".join(character if character.isprintable() else " " for character in cut)
