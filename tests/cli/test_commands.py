"""Each command, with good and with bad input: what it says, where it says it, and its exit code."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edda import EddaApp, send_event
from edda.cli import main, tail, terminal
from edda.cli.commands import ALIASES, COMMANDS
from edda.core.commit import End
from edda.core.lifecycle import Status
from edda.storage.sql import open_reader, open_store
from edda.storage.sql import reads as sql_reads
from edda.storage.sql.migrate import MIGRATIONS
from tests.cli import service
from tests.cli.conftest import PROGRAMS, SERVICE, Run, Said
from tests.cli.programs import approval, order, shipping, sold_out
from tests.storage.support import W1, World, commit, do, message, new


async def aside(edda: Run, *arguments: str) -> Said:
    """A command in a thread, while an app runs in this loop."""
    return await asyncio.to_thread(edda, *arguments)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# -- help and wrong usage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "db", *COMMANDS, *ALIASES])
def test_help_ends_well_and_fits_a_small_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*command.split(), "--help"]) == 0
    text, errors = capsys.readouterr()
    assert text.startswith("usage: edda")
    assert max(map(len, text.splitlines())) <= 80
    assert main(["help", *command.split()]) == 0
    assert capsys.readouterr() == (text, errors)


@pytest.mark.parametrize("words", [[], ["db"]], ids=str)
def test_who_says_too_little_sees_the_help_and_an_exit_code(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, errors = capsys.readouterr()
    assert (out, errors.startswith("usage: edda")) == ("", True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "there is no command 'nonsense'; edda --help lists them"),
        (["lss"], 2, "did you mean ls?"),
        (["db", "upgrad"], 2, "there is no command 'db upgrad'; did you mean db upgrade?"),
        (["--json", "ls"], 2, "--json came first; a command comes first"),
        (["ls", "--jsn"], 2, "unrecognized arguments: --jsn; edda ls --help says what it takes"),
        (["show"], 2, "required: id; edda show --help"),
        (["ls", "--status", "finished"], 2, "invalid choice: 'finished'"),
        (["ls", "--limit", "0"], 2, "no number from 1 to 200"),
        (["ls", "--since", "yesterday"], 2, "'yesterday' is no time"),
        (["ls", "--where", "order_id"], 2, "not of the form name=value"),
        (["ls", "--page", "nonsense"], 2, "not one that was given out"),
        (["show", "nobody"], 3, "no workflow instance 'nobody'"),
        (["why", "nobody"], 3, "no workflow instance 'nobody'"),
        (["tail", "nobody"], 3, "no workflow instance 'nobody'"),
        (["cancel", "nobody"], 3, "no workflow instance 'nobody'"),
        (["retry", "nobody"], 3, "no workflow instance 'nobody'"),
        (["requeue", "nobody"], 3, "no dead letter 'nobody'; edda requeue lists"),
        (["send", "x", "--to", "nobody"], 3, "no workflow instance 'nobody'"),
        (["send", "x", "--data", "1", "--file", "y"], 2, "not from both"),
        (["send", "x", "--file", "/nowhere/y"], 1, "/nowhere/y: No such file or directory"),
        (["complete", "nonsense"], 2, "token"),
        (["start", "nowhere:x"], 2, "There is no module 'nowhere'"),
        (["start", "shop.py"], 2, "is no module"),
        (
            ["start", f"{PROGRAMS}:nobody"],
            2,
            f"There is no 'nobody' in {PROGRAMS}; it has {PROGRAMS}:approval, {PROGRAMS}:order",
        ),
        (["start", f"{PROGRAMS}:NOT_A_WORKFLOW"], 2, "is a int, and no workflow"),
        (["start", f"{PROGRAMS}:order"], 2, "order_id: Missing required argument"),
        (["start", f"{PROGRAMS}:order", "order_id=1", "amount=x"], 2, "amount: Input should be a valid number"),
        (["start", f"{PROGRAMS}:order", "order_id=1", "--args", "[]"], 2, "one JSON object"),
        (["start", f"{PROGRAMS}:order", "order_id=1", "--args", '{"order_id": "2"}'], 2, "order_id is given twice"),
        (["start", f"{PROGRAMS}:order", "order_id=1", "--id", ""], 2, "1 to 255 characters, not 0"),
        (["start", f"{PROGRAMS}:order", "order_id=1", "--id", "x" * 256], 2, "1 to 255 characters, not 256"),
        (["start", f"{PROGRAMS}:order", "order_id=1", "--id", "x "], 2, "neither ends in a space"),
        (["show", "--", "-x"], 3, "no workflow instance '-x'"),
        (["send", ""], 2, "neither is empty"),
        (["send", "x", "--source", ""], 2, "neither is empty"),
        (["run", f"{PROGRAMS}:order"], 2, f"no EddaApp; write {PROGRAMS}:APP"),
        (["db", "gc"], 2, "--older-than"),
        (["db", "gc", "--older-than", "soon"], 2, "'soon' is no duration"),
        (["db", "sql", "--from-version", "99"], 2, "there is no version 99"),
        (["ls", "--db", "sqlite:///a%00b"], 4, "[database: sqlite:///a%00b]"),
        (["doctor", "--db", "sqlite:////"], 4, "Cannot open the SQLite database /: unable to open"),
        (["ls", "--db", "sqlite:///edda.db?mode=ro"], 4, "has no options, and this one has ?mode=;"),
        (["ls", "--db", "oracle://x"], 4, "of the kind 'oracle'"),
        (["ls", "--db", "postgresql://nobody@127.0.0.1:1/x"], 4, "cannot be reached"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gives_one_clear_line_and_never_a_traceback(
    edda: Run, arguments: list[str], code: int, said: str
) -> None:
    assert edda("db", "upgrade").code == 0
    told = edda(*arguments)
    assert (told.code, told.out) == (code, "")
    assert said in told.err
    assert "Traceback" not in told.err
    assert told.err.startswith("edda: ")
    assert told.err.count("\n") == 1


MISSING = [
    ["ls"], ["show", "x"], ["why", "x"], ["tail"], ["tail", "x"], ["cancel", "x"], ["retry", "x"], ["send", "x"],
    ["requeue"], ["requeue", "x"], ["doctor"], ["db", "check"], ["db", "gc", "--older-than", "1d"],
    ["start", f"{PROGRAMS}:approval"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", MISSING, ids=str)
def test_a_mistyped_database_is_not_made(edda: Run, arguments: list[str], tmp_path: Path) -> None:
    told = edda(*arguments)
    assert (told.code, told.out) == (4, "")
    assert f"There is no SQLite database {tmp_path / 'edda.db'}. " in told.err
    assert "edda db upgrade" in told.err
    assert not (tmp_path / "edda.db").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["order_id=1", "amount=2", "--id", "o-1", "--json"],
        ["--id", "o-1", "order_id=1", "--json", "amount=2"],
        ["order_id=1", "--id=o-1", "amount=2", "--json"],
    ],
    ids=str,
)
def test_arguments_and_options_come_in_any_order(edda: Run, words: list[str]) -> None:
    assert edda("db", "upgrade").code == 0
    assert edda("start", f"{PROGRAMS}:order", *words).json == {"id": "o-1", "created": True}
    shown = edda("show", "--history", "1", "o-1", "--json").json
    assert json.loads(shown["input"])["kwargs"] == {"order_id": "1", "amount": 2.0}
    assert edda("show", "--json", "o-1", "--history", "1").json["id"] == "o-1"


def test_a_start_goes_to_the_database_of_the_app_beside_the_workflow(
    edda: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = f"sqlite:///{tmp_path / 'own.db'}", f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setattr(service.app, "db_url", own)
    for url in (own, other):
        assert edda("db", "upgrade", "--db", url).code == 0
    assert edda("start", f"{SERVICE}:approval", "--id", "a").code == 0
    assert edda("show", "a", "--db", own).code == 0
    assert edda("start", f"{SERVICE}:approval", "--id", "b", "--db", other).code == 0
    assert (edda("show", "b", "--db", own).code, edda("show", "b", "--db", other).code) == (3, 0)
    monkeypatch.setattr(service, "second", EddaApp("second", db_url=other), raising=False)
    told = edda("start", f"{SERVICE}:approval")
    assert (told.code, told.err) == (2, f"edda: the apps of {SERVICE} have 2 databases: say which with --db\n")


# -- looking ---------------------------------------------------------------------------------------------------------


async def test_a_start_is_listed_shown_and_explained(edda: Run, app: EddaApp) -> None:
    started = await aside(edda, "start", f"{PROGRAMS}:order", "order_id=42", "amount=9.5", "--id", "o-42")
    assert (started.code, started.out, started.err) == (0, "o-42\n", "")

    async def waits() -> bool:
        return await app.handle("o-42").status() == "waiting_for_event"

    await until(waits)
    listed = await aside(edda, "ls")
    assert listed.out.splitlines()[1].split()[:3] == ["o-42", "cli_order", "waiting_for_event"]
    found = (await aside(edda, "ls", "--where", "order_id=42", "--json")).json
    assert found["instances"] == []  # 42 is a number, and it was started with a text
    found = (await aside(edda, "ls", "--where", 'order_id="42"', "--status", "waiting_for_event", "--json")).json
    assert [row["id"] for row in found["instances"]] == ["o-42"]
    assert (await aside(edda, "ls", "--counts", "--json")).json == [
        {"workflow": "cli_order", "status": "waiting_for_event", "count": 1, "capped": False}
    ]
    why = await aside(edda, "why", "o-42")
    assert "o-42: has waited " in why.out
    assert ' for event cli.paid (order_id="42"), times out in 59 min' in why.out
    shown = await aside(edda, "show", "o-42")
    assert "ActivityCompleted  cli_charge:1" in shown.out
    document = (await aside(edda, "show", "o-42", "--json")).json
    assert [event["kind"] for event in document["history"]] == ["WorkflowStarted", "ActivityCompleted"]
    assert document["waits"][0]["type"] == "cli.paid"


async def test_an_event_ends_it_and_its_result_is_printed(edda: Run, app: EddaApp) -> None:
    start = asyncio.create_task(
        aside(edda, "start", f"{PROGRAMS}:order", "order_id=7", "--id", "o-7", "--wait", "--timeout", "1m")
    )

    async def there() -> bool:
        return [entry.id async for entry in app.instances()] == ["o-7"]

    await until(there)
    await send_event("cli.paid", "/tests", {"order_id": "7", "by": "ann"})
    assert (await start).out == '"7 paid by ann"\n'


async def test_an_event_is_sent_once(edda: Run, app: EddaApp) -> None:
    handle = await app.start(order, order_id="1")
    data = json.dumps({"order_id": "1", "by": "bob"})
    first = await aside(edda, "send", "cli.paid", "--data", data, "--id", "e1")
    again = await aside(edda, "send", "cli.paid", "--data", data, "--id", "e1", "--json")
    assert (first.out, again.json["receipt"]) == ("e1\n", "duplicate")
    assert await handle.result(timeout=30) == "1 paid by bob"
    tailed = await aside(edda, "tail", str(handle))
    assert [line.split()[3] for line in tailed.out.splitlines()][-1] == "WorkflowCompleted"
    assert "completed" in (await aside(edda, "why", str(handle))).out
    refused = await aside(edda, "cancel", str(handle))
    assert refused.code == 1
    assert "completed" in refused.err


async def test_a_cancel_says_by_whom(edda: Run, app: EddaApp) -> None:
    handle = await app.start(order, order_id="2")
    assert (await aside(edda, "cancel", str(handle), "--by", "ann", "--json")).code == 0

    async def over() -> bool:
        return await handle.status() == "cancelled"

    await until(over)
    assert "cancelled by ann" in (await aside(edda, "why", str(handle))).out


async def test_a_retry_is_explained(edda: Run, app: EddaApp) -> None:
    handle = await app.start(shipping, order_id="3")

    async def parked() -> bool:
        return "retry" in (await aside(edda, "ls", "--text", "retry")).out

    await until(parked)
    told = await aside(edda, "why", str(handle), "--json")
    assert "attempt 2 of activity cli_ship (cli_ship:1) in" in told.json["why"]
    assert "TimeoutError: the carrier does not answer" in told.json["why"]


async def test_it_says_how_and_where_a_workflow_failed_that_was_undone(edda: Run, app: EddaApp) -> None:
    handle = await app.start(sold_out, order_id="lamps")
    with pytest.raises(LookupError):
        await handle.result(timeout=30)
    assert "LookupError: no more lamps" in (await aside(edda, "ls", "--status", "failed")).out
    shown = (await aside(edda, "show", str(handle), "--stack")).out
    assert shown.count('raise LookupError(f"no more {order_id}")') == 1
    assert '{"error_type"' not in shown


def test_a_table_in_a_narrow_terminal_keeps_what_is_short_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(terminal, "_draws", lambda: True)
    row = (1, "2030-01-01 00:00:00", "ActivityAttemptFailed", "charge:1", "ConnectionError: the bank is away today")
    terminal.table(("SEQ", "TIME (UTC)", "EVENT", "CALL", "VALUE"), [row])
    said = capsys.readouterr().out.splitlines()
    assert said[1].split()[:5] == ["1", "2030-01-01", "00:00:00", "ActivityAttemptFailed", "charge:1"]
    assert max(map(len, said)) <= 80
    assert " ".join(line[said[0].index("VALUE") :].strip() for line in said[1:]) == row[-1]


async def test_a_callback_is_answered_once(edda: Run, app: EddaApp) -> None:
    handle = await app.start(approval)

    async def asked() -> bool:
        return len(await handle.history()) >= 3

    await until(asked)
    token = next(entry.event_data["result"] for entry in await handle.history() if entry.name == "tell")
    assert token not in (await aside(edda, "why", str(handle))).out
    assert (await aside(edda, "complete", token, "--data", '{"ok": true}')).code == 0
    assert await handle.result(timeout=30) == {"ok": True}
    assert (await aside(edda, "complete", token)).code in (1, 3)


def test_what_users_stored_moves_no_cursor(edda: Run) -> None:
    assert edda("db", "upgrade").code == 0
    evil = "\x1b[2J\x07\u202egnp"
    arguments = ("start", f"{PROGRAMS}:order", "--args", json.dumps({"order_id": evil}), "--id", "o-1")
    assert edda(*arguments).code == 0
    for command in (("show", "o-1"), ("ls",), ("why", "o-1"), ("show", "o-1", "--json")):
        assert not set(edda(*command).out) & {"\x1b", "\x07", "\u202e"}


EVIL = "\x1b[2J\x07\u202egnp\x7f\x9b2J\u2028\rx\ny"
"""Text that clears the screen, rings, turns round, and begins a line of its own."""


async def _plant_evil(url: str) -> None:
    store = open_store(url)
    await store.open()
    world = World(store)
    await world.worker(W1)
    error = json.dumps({"error_type": EVIL, "error_message": EVIL, "stack_trace": EVIL})
    await world.start(new(EVIL, owner=W1, workflow=EVIL), new("odd", owner=W1), new("due", workflow=EVIL))
    await world.write(
        commit(EVIL, 1, row=End(status=Status.FAILED, error=error), outbox=(message(EVIL, 1, type=EVIL, id=EVIL),)),
        commit("odd", 1, row=End(status=Status.NONDETERMINISTIC, error=EVIL)),
    )
    await do(store, "update edda_instance set claimable_at_us = 5 where id = 'due'")
    await do(store, "update edda_outbox set status = 'dead', reason = ?", EVIL)
    await world.close()
    await store.close()


def _is_harmless(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text) and "\ny" not in text


@pytest.mark.parametrize(
    "command",
    [
        ["ls"], ["ls", "--counts"], ["show", EVIL, "--stack"], ["show", "odd", "--stack"], ["why", EVIL], ["doctor"],
        ["requeue"], ["tail", EVIL, "--from-start"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_text_of_users_moves_no_cursor_and_json_stays_json(edda: Run, url: str, command: list[str]) -> None:
    asyncio.run(_plant_evil(url))
    told = edda(*command)
    assert told.code == (1 if command == ["doctor"] else 0), told.err
    assert _is_harmless(told.out + told.err)
    said = edda(*[word for word in command if word != "--stack"], "--json")
    assert _is_harmless(said.out)
    assert all(json.loads(line) is not None for line in said.out.splitlines())


@pytest.mark.parametrize("command", [["cancel"], ["retry"], ["show"], ["requeue"], ["ls"], [], ["send", "x", "--to"]])
def test_words_that_are_wrong_are_repeated_without_what_moves_a_cursor(edda: Run, command: list[str]) -> None:
    assert edda("db", "upgrade").code == 0
    told = edda(*command, EVIL)
    assert (told.code in (1, 2, 3), told.out) == (True, "")
    assert _is_harmless(told.err)
    assert told.err.count("\n") == 1


def test_a_dead_letter_is_named_without_what_moves_a_cursor(edda: Run, url: str) -> None:
    asyncio.run(_plant_evil(url))
    told = edda("requeue", EVIL)
    assert (told.code, told.out.count("\n")) == (0, 1)
    assert _is_harmless(told.out)


def test_a_tail_names_ids_whole(edda: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert edda("db", "upgrade").code == 0
    long = "x" * 255
    sleeps = iter(range(9))

    async def start_or_interrupt(seconds: float) -> None:
        if next(sleeps):
            raise KeyboardInterrupt
        words = (sys.executable, "-m", "edda", "start", f"{PROGRAMS}:approval", "--id", long)
        assert await (await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)).wait() == 0

    monkeypatch.setattr(tail.asyncio, "sleep", start_or_interrupt)
    assert f"  {long}  running" in edda("tail").out


def test_a_value_of_a_hundred_thousand_brackets_is_text(edda: Run) -> None:
    assert edda("db", "upgrade").code == 0
    assert edda("ls", "--where", "x=" + "[" * 100_000).code == 0


def test_an_id_that_is_taken_asks_for_another_one(edda: Run) -> None:
    assert edda("db", "upgrade").code == 0
    assert edda("start", f"{PROGRAMS}:order", "order_id=1", "--id", "o-1").code == 0
    assert edda("start", f"{PROGRAMS}:order", "order_id=1", "--id", "o-1", "--json").json["created"] is False
    told = edda("start", f"{PROGRAMS}:order", "order_id=2", "--id", "o-1")
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("edda: o-1 was started before, with other arguments")


def test_a_tail_of_all_says_where_it_does_not_look(edda: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert edda("db", "upgrade").code == 0
    for number in range(5):
        assert edda("start", f"{PROGRAMS}:approval", "--id", f"a-{number}").code == 0

    async def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tail.asyncio, "sleep", interrupt)
    told = edda("tail")
    assert (told.code, told.err) == (130, "Waiting for changes; Ctrl-C ends it.\n")
    monkeypatch.setattr(sql_reads, "SCANNED_MAX", 3)
    told = edda("tail")
    assert told.code == 130
    assert "Only the newest 10,000 instances are watched; for an older one: edda tail ID\n" in told.err


async def test_a_tail_of_all_misses_none_of_many_changes(
    edda: Run, url: str, app: EddaApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await approval.options(id=f"a-{number}").start()
    monkeypatch.setattr(tail, "PAGE_MAX", 2)
    reader = open_reader(url)
    await reader.open()
    rows, whole = await tail.changed_since(reader, 0)
    await reader.close()
    assert (sorted(row.id for row in rows), whole) == ([f"a-{number}" for number in range(5)], True)


# -- the tables ------------------------------------------------------------------------------------------------------


def test_tables_are_made_checked_and_printed(edda: Run) -> None:
    assert edda("db", "check").code == 4
    newest = MIGRATIONS[-1].version
    assert edda("db", "upgrade").out == f"The tables have version {newest}.\n"
    assert edda("db", "check", "--json").json == {"version": newest}
    for url in ("sqlite:///nowhere/x.db", "postgresql://nowhere/x", "mysql://nowhere/x"):
        text = edda("db", "sql", "--db", url).out
        assert "create table if not exists edda_instance" in text
        assert "edda_instance_listed" in text
    assert "edda_inbox" not in edda("db", "sql", "--from-version", "1").out


async def test_what_is_old_is_forgotten(edda: Run, app: EddaApp) -> None:
    handle = await app.start(order, order_id="1")
    await aside(edda, "send", "cli.paid", "--data", '{"order_id": "1", "by": "x"}')
    await handle.result(timeout=30)
    kept = await app.start(order, order_id="2")
    assert (await aside(edda, "db", "gc", "--older-than", "1d", "--json")).json["instances"] == 0
    dry = await aside(edda, "db", "gc", "--older-than", "0s", "--dry-run")
    assert dry.out == "1 instance with 4 rows of history would be forgotten.\n"
    assert (await aside(edda, "db", "gc", "--older-than", "0s", "--json")).json["instances"] == 1
    assert [entry.id async for entry in app.instances()] == [kept]
