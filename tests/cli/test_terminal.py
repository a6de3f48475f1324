"""How tables fit terminals, and what is a word for what."""

from __future__ import annotations

import re
import sys

import pytest

from edda.cli import terminal

ID = "order-01a206db5e82764b9347c2122e2462ec"
ROW = (ID, "an_order_of_lamps", "waiting_for_event", "33m ago", "event order.paid that is long in coming, and longer")


def _draws(monkeypatch: pytest.MonkeyPatch, *, columns: int, rich: bool) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(terminal, "_draws", lambda: rich)


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "drawn"])
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_table_stays_within_the_terminal_and_its_ids_stay_whole(
    columns: int, rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _draws(monkeypatch, columns=columns, rich=rich)
    terminal.table(("ID", "WORKFLOW", "STATUS", "CHANGED", "REASON"), [ROW])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(terminal.width, lines)) <= columns
    assert sum(ID in line for line in lines) == 1
    assert (lines[1].rstrip().endswith(ROW[-1])) is (columns == 200)


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "drawn"])
def test_a_terminal_has_no_column_that_is_empty(
    rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _draws(monkeypatch, columns=80, rich=rich)
    terminal.table(("ID", "STATUS", "REASON"), [("a", "running", ""), ("b", "", "")])
    assert "REASON" not in capsys.readouterr().out
    terminal.table(("ID", "STATUS", "REASON"), [])
    assert "REASON" in capsys.readouterr().out


def test_a_pipe_gets_everything(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal.table(("ID", "WORKFLOW", "STATUS", "CHANGED", "REASON"), [ROW])
    assert capsys.readouterr().out.splitlines()[1].endswith(ROW[-1])


def test_what_people_copy_is_whole_letter_by_letter(capsys: pytest.CaptureFixture[str]) -> None:
    odd = f" two  blanks\n{'x' * 230}"
    terminal.table(("ID", "STATUS"), [(odd, "running")])
    assert capsys.readouterr().out.splitlines()[1] == odd.replace("\n", "\\n") + "  running"


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "drawn"])
@pytest.mark.parametrize("columns", [1, 2, 7])
def test_a_terminal_may_be_as_narrow_as_it_likes(
    columns: int, rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _draws(monkeypatch, columns=columns, rich=rich)
    terminal.table(("ID", "STATUS"), [("日本語", "running"), ("e\u0301", "")])
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("us", "said"),
    [(-5, "0s ago"), (59_999_999, "59s ago"), (60_000_000, "1m ago"), (7_200_000_000, "2h ago"), (10**12, "11d ago")],
)
def test_an_age_is_a_number_and_a_unit(us: int, said: str) -> None:
    assert terminal.age(us) == said


def test_wide_letters_are_cut_by_their_columns() -> None:
    assert terminal.cut("日本語", 5) == "日本…"
    assert terminal.cut("日本語", 6) == "日本語"


def test_progress_leaves_no_trace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = terminal.Progress("forgetting")
    progress.tell("1 instance")
    progress.end()
    assert capsys.readouterr().err == "\r\x1b[Kforgetting: 1 instance\r\x1b[K"
