"""An app's life in a real process: forks, loops, forgotten shutdowns, many boots at once, and who comes after whom."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.processes import Program
from tests.acceptance.support import on_every_database, on_every_server
from tests.databases import fresh_database
from tests.process import checker, programs
from tests.process.nemesis import poll
from tests.process.worker_main import read_log
from tests.process.zygote import Zygote

pytestmark = pytest.mark.process

AT_ONCE_SECONDS = 8.0
"""What takes a second, on a machine that does four other things."""


@on_every_database
def test_a_forked_child_is_told_to_initialise_after_the_fork(program: Callable[[str], Program]) -> None:
    forking = program("""
        import os
        from edda import EddaError

        @workflow
        async def hello(ctx: WorkflowContext) -> str:
            return "hello"

        def use_it_in_a_child(run):
            if (pid := os.fork()) == 0:
                try:
                    run(hello.start())
                except EddaError as error:
                    note(f"{type(error).__name__}: {error}")
                os._exit(0)
            os.waitpid(pid, 0)

        app = EddaApp(db_url=DB_URL)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(app.initialize())
        use_it_in_a_child(asyncio.run)
        say(loop.run_until_complete(hello.run()))
        # A loop that two processes run reads what the other was sent: nothing works on it any more, in either of them.
        use_it_in_a_child(loop.run_until_complete)
        os._exit(0)

        async def main(): pass
    """)
    assert forking.run() == ["hello"]
    assert len(forking.notes) == 2
    for noted in forking.notes:
        assert "WrongLoopError" in noted
        assert "Initialise the app after the fork" in noted


@on_every_database
def test_a_forgotten_shutdown_does_not_hang_the_exit(program: Callable[[str], Program]) -> None:
    forgetful = program(
        """
        import time

        @activity
        def blocking(ctx: WorkflowContext) -> None:
            note("blocking")
            time.sleep(60)

        @workflow
        async def waiting(ctx: WorkflowContext) -> None:
            await blocking(ctx)

        async def main():
            app = EddaApp(db_url=DB_URL)
            await app.initialize()
            await waiting.start()
            while not (_DIRECTORY / "notes").exists():
                await asyncio.sleep(0.01)
            say("leaving")
    """.replace("_DIRECTORY", "__import__('pathlib').Path(__import__('os').environ['EDDA_TEST_DIRECTORY'])")
    )
    process = forgetful.start()
    process.wait_for("leaving")
    left = time.monotonic()
    assert process.finish() == ["leaving"]
    assert time.monotonic() - left < AT_ONCE_SECONDS


@on_every_database
def test_an_app_lives_again_in_a_second_loop_after_a_shutdown_in_the_first(program: Callable[[str], Program]) -> None:
    twice = program("""
        from edda import EddaError

        @workflow
        async def hello(ctx: WorkflowContext, name: str) -> str:
            return f"hello {name}"

        app = EddaApp(db_url=DB_URL)
        workers = []

        async def use(name: str) -> None:
            async with app:
                workers.append(app.worker_id)
                say(await hello.run(name=name))

        asyncio.run(use("one"))
        asyncio.run(use("two"))
        say(len(set(workers)))

        async def begin() -> None:
            await app.initialize()

        asyncio.run(begin())
        try:
            asyncio.run(use("three"))
        except EddaError as error:
            note(f"{type(error).__name__}: {error}")

        async def main(): pass
    """)
    assert twice.run() == ["hello one", "hello two", "2"]
    assert twice.notes[0].startswith("WrongLoopError: ")
    assert "another event loop" in twice.notes[0]


@on_every_database
def test_two_apps_in_one_process_keep_to_their_own_databases(program: Callable[[str], Program]) -> None:
    with fresh_database("sqlite") as other:
        both = program(f"""
            @workflow
            async def hello(ctx: WorkflowContext, name: str) -> str:
                return f"hello {{name}}"

            async def main():
                async with EddaApp(db_url=DB_URL) as one, EddaApp(db_url={other!r}) as two:
                    first = await one.start(hello.options(id="h-1"), name="one")
                    second = await two.start(hello.options(id="h-1"), name="two")
                    say(await first.result(timeout=20))
                    say(await second.result(timeout=20))
                    say(await one.handle("h-1").result(timeout=20))
        """)
        assert both.run() == ["hello one", "hello two", "hello one"]


@on_every_database
def test_calls_while_it_shuts_down_make_no_second_worker(program: Callable[[str], Program], db_url: str) -> None:
    closing = program("""
        from edda import EddaError

        begun = asyncio.Event()

        @activity
        async def long(ctx: WorkflowContext) -> None:
            begun.set()
            await forever()

        @workflow
        async def working(ctx: WorkflowContext) -> None:
            await long(ctx)

        async def main():
            app = EddaApp(db_url=DB_URL, shutdown_grace_seconds=1)
            await app.initialize()
            handle = await working.start()
            await begun.wait()
            leaving = asyncio.create_task(app.shutdown())
            refused = 0
            while not leaving.done():
                for call in (handle.status, handle.cancel, working.start, app.initialize):
                    try:
                        await asyncio.sleep(0.02)
                        if app.running:  # after that, a call begins anew
                            await call()
                    except EddaError:
                        refused += 1
            await leaving
            say(refused > 3)
    """)
    assert closing.run() == ["True"]
    assert checker.read(db_url, "SELECT state FROM edda_worker")[0] == [("dead",)]


def test_on_sqlite_a_second_process_is_a_client_until_the_first_dies_and_then_takes_its_place(
    program: Callable[[str], Program],
) -> None:
    pair = program("""
        @activity
        async def step(ctx: WorkflowContext, name: str) -> str:
            note(f"{name} by {ROLE}")
            if name == "long" and ROLE == "first":
                await forever()
            return f"{name} by {ROLE}"

        @workflow
        async def one_step(ctx: WorkflowContext, name: str) -> str:
            return await step(ctx, name)

        async def main():
            async with EddaApp(db_url=DB_URL, lease_seconds=6) as app:
                say("ready")
                if ROLE == "first":
                    await forever()
                say(await (await app.start(one_step, "short")).result(timeout=20))
                long = await app.start(one_step, "long")
                say("started")
                say(await long.result(timeout=60))
    """)
    first = pair.start("first")
    first.wait_for("ready")
    second = pair.start("second")
    joined = time.monotonic()
    second.wait_for("short by first")
    second.wait_for("started")
    assert poll(lambda: "long by first" in pair.notes, seconds_max=20)
    # It has waited for longer than its lease: that is no reason to mistrust its own clock.
    poll(lambda: time.monotonic() - joined > 8, seconds_max=10)
    killed = time.monotonic()
    first.send(signal.SIGKILL)
    second.wait_for("long by second")
    seconds = time.monotonic() - killed
    print(f"SQLite: from SIGKILL of the worker to the result in the waiting process: {seconds:.2f} s")
    assert seconds < 5, "it waited for the lease"
    assert second.finish()[-1] == "long by second"


@pytest.mark.parametrize(
    "database",
    [pytest.param("postgresql", marks=pytest.mark.postgresql), pytest.param("mysql", marks=pytest.mark.mysql)],
)
def test_eight_processes_may_boot_at_once_on_an_empty_database(database: str, tmp_path: Path) -> None:
    with fresh_database(database) as url:
        checker.execute(url, programs.CREATE_EFFECT)
        zygote = Zygote(errors=tmp_path / "stderr", program="tests.process.worker_main")
        try:
            arguments = ["--url", url, "--slots", "8", "--workflows", "8", "--rate", "10", "--cancel-share", "0"]
            children = [
                zygote.spawn(slot, [*arguments, "--slot", str(slot), "--log", str(log)], errors=tmp_path / "stderr")
                for slot, log in enumerate(_logs(tmp_path))
            ]
            ended = poll(lambda: _ended(url) == 11 or any(child.poll() for child in children), seconds_max=60)
            assert ended, checker.statuses(url)
            for child in children:
                os.kill(child.pid, signal.SIGTERM)
            codes = [child.wait(30) for child in children]
            assert codes == [0] * 8, (tmp_path / "stderr").read_text(encoding="utf-8")[-3000:]
        finally:
            for child in children:
                if child.poll() is None:
                    os.kill(child.pid, signal.SIGKILL)
                    child.wait()
            zygote.close()
        events = [line["e"] for log in _logs(tmp_path) for line in read_log(log)]
        assert events.count("registered") == 8
        assert checker.alive(url) == []


def _logs(directory: Path) -> list[Path]:
    return [directory / f"slot-{slot}.jsonl" for slot in range(8)]


def _ended(url: str) -> int:
    """Instances that have ended: 8 roots, one of them a family, with three children."""
    try:
        counts = checker.statuses(url)
    except Exception:  # there are no tables yet
        return 0
    return sum(count for status, count in counts.items() if status in checker.LAST)


@on_every_server
def test_after_sigterm_and_shutdown_another_worker_goes_on_at_once_and_it_is_no_crash(
    program: Callable[[str], Program], db_url: str
) -> None:
    pair = program("""
        import signal

        @activity
        async def step(ctx: WorkflowContext, name: str) -> str:
            note(f"{name} by {ROLE}, attempt {ctx.activity.attempt}")
            if name == "long" and ROLE == "first":
                await forever()
            return f"{name} by {ROLE}"

        @workflow
        async def steps(ctx: WorkflowContext, number: int) -> list[str]:
            return [await step(ctx, "short"), await step(ctx, "long")]

        async def main():
            terminated = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
            async with EddaApp(db_url=DB_URL, shutdown_grace_seconds=0.5) as app:
                if ROLE == "first":
                    for number in range(10):
                        await steps.options(id=f"s-{number}").start(number)
                    say("started")
                    await terminated.wait()
                else:
                    say("ready")
                    results = [await app.handle(f"s-{number}").result(timeout=60) for number in range(10)]
                    say(results == [["short by first", "long by second"]] * 10)
    """)
    first = pair.start("first")
    first.wait_for("started")
    second = pair.start("second")
    second.wait_for("ready")
    assert poll(lambda: sum(note.startswith("long by first") for note in pair.notes) == 10, seconds_max=20)
    sent = time.monotonic()
    first.send(signal.SIGTERM)
    assert second.finish() == ["ready", "True"]
    seconds = time.monotonic() - sent
    print(f"from SIGTERM (grace 0.5 s) to the results of 10 instances elsewhere: {seconds:.2f} s")
    assert first.finish() == ["started"]
    assert seconds < AT_ONCE_SECONDS
    assert sum(note == "long by second, attempt 1" for note in pair.notes) == 10
    rows = checker.read(db_url, "SELECT crashes FROM edda_instance", "SELECT state FROM edda_worker")
    assert [row[0] for row in rows[0]] == [0] * 10
    assert {row[0] for row in rows[1]} == {"dead"}


@on_every_server
def test_a_worker_that_slept_through_its_lease_is_refused_and_goes_on_as_a_new_one(
    program: Callable[[str], Program], db_url: str
) -> None:
    checker.execute(db_url, programs.CREATE_EFFECT)
    pair = program("""
        import os
        import signal
        from tests.process.programs import INSERT

        @activity
        async def book(ctx: WorkflowContext) -> str:
            row = {"instance": ctx.instance_id, "call": ctx.activity.id, "kind": "do", "attempt": 1, "worker": ROLE}
            await ctx.session.execute(INSERT, row)
            if ROLE == "sleeper" and ctx.instance_id == "o-1":
                note("asleep")
                os.kill(os.getpid(), signal.SIGSTOP)
            return f"booked by {ROLE}"

        @workflow
        async def order(ctx: WorkflowContext) -> str:
            return await book(ctx)

        async def main():
            async with EddaApp(db_url=DB_URL, lease_seconds=1.5) as app:
                worker = app.worker_id
                if ROLE == "sleeper":
                    say(await (await app.start(order.options(id="o-1"))).result(timeout=30))
                    while app.worker_id in ("", worker):
                        await asyncio.sleep(0.01)
                    say(await (await app.start(order.options(id="o-2"))).result(timeout=30))
                else:
                    say("ready")
                    await allowed("look")
                    while await app.handle("o-1").status() != "completed":
                        await asyncio.sleep(0.05)
                    say("taken over")
                    await allowed("end")
    """)
    heir = pair.start("heir")
    sleeper = pair.start("sleeper")
    heir.wait_for("ready")
    assert poll(lambda: pair.notes == ["asleep"], seconds_max=20)
    pair.allow("look")
    heir.wait_for("taken over")
    sleeper.send(signal.SIGCONT)
    assert sleeper.finish() == ["booked by heir", "booked by sleeper"]
    pair.allow("end")
    heir.finish()
    rows = checker.read(db_url, f"SELECT instance_id, worker FROM {programs.EFFECT} ORDER BY instance_id")[0]
    assert rows == [("o-1", "heir"), ("o-2", "sleeper")]
