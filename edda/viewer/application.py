"""The viewer as an ASGI application: a table of pages, a stream of changes, the actions, and the guard before them all.

It decides nothing about what a page shows (`*_page`), who may see it (`guard`) or what an action does (`actions`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edda import visualizer
from edda.core.history import HistoryEvent, InstanceId
from edda.exceptions import EddaError
from edda.storage.port import UnknownOutcome
from edda.storage.reads import PageTokenError, Reader
from edda.storage.sql.url import without_secrets
from edda.viewer import starting, words
from edda.viewer.actions import ACTIONS, NOTICES
from edda.viewer.asked import Asked, Misread, instance_path
from edda.viewer.forms import read_form
from edda.viewer.guard import LOOPBACK, Guard, path_of, session_of
from edda.viewer.house import House
from edda.viewer.knowledge import Knowledge
from edda.viewer.live import Streams
from edda.viewer.pages import NAVIGATION, PAGES, PageKind, mark_of, page_at
from edda.viewer.session import Sessions
from edda.viewer.starting import Code

log = logging.getLogger("edda.viewer")

START_FIELDS_MAX: Final = 2_000
"""Of a form that starts an instance; each row of a list has some."""
STATIC_SECONDS: Final = 3600
NAMED_WORDS: Final = frozenset({"notice"})
"""Parameters that are about the page itself, not about what is asked."""


def create_app(
    db_url: str,
    *,
    token: str,
    allow_actions: bool = False,
    allowed_hosts: Collection[str] = LOOPBACK,
    name: str | None = None,
    app: Code | None = None,
) -> Starlette:
    """The viewer of a database, to be served or mounted in another ASGI application.

    Args:
        db_url: As for `EddaApp`. It is connected with the first request, and only read, by a role that may only SELECT.
        token: What a visitor has to show once, in the address (`?token=...`), in the form, or as a bearer token.
        allow_actions: Start, cancel and retry instances, send events and requeue dead letters from the pages.
        allowed_hosts: Names under which it may be asked, without ports; by default those of this machine only.
        name: What is viewed, shown in the corner; by default the database's URL without its password.
        app: Your `EddaApp`, so that the forms that start instances ask for the parameters of its workflows. Where it
            runs in the same event loop, actions go by its own connections: a file of SQLite has one writer.
    """
    viewer = Viewer(db_url, sessions=Sessions(token), allow_actions=allow_actions, name=name, code=app)
    guard = Middleware(
        Guard, sessions=viewer.sessions, allowed_hosts=tuple(allowed_hosts), ask_for_token=viewer.ask_for_token
    )
    asgi = Starlette(
        routes=viewer.routes(), middleware=[guard], lifespan=viewer.lifespan, exception_handlers=viewer.failures()
    )
    asgi.state.close = viewer.close
    return asgi


class Viewer:
    """The endpoints."""

    def __init__(
        self, db_url: str, *, sessions: Sessions, allow_actions: bool, name: str | None, code: Code | None
    ) -> None:
        self.sessions = sessions
        self._house = House(db_url, code)
        self._knowledge = Knowledge()
        self._streams = Streams()
        self._allow_actions = allow_actions
        self._code = code
        self._name = name if name is not None else without_secrets(db_url)
        self._templates = Environment(
            loader=PackageLoader("edda.viewer"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[Any]:
        return [
            Route("/", self._front),
            Route("/token", self._token, methods=["POST"]),
            Route("/live", self._live),
            Route("/value", self._value),
            Route("/act/{action}", self._act, methods=["POST"]),
            Route("/start", self._start_form),
            Route("/start", self._start, methods=["POST"]),
            Route("/static/diagram.css", _diagram_style),
            Route("/static/diagram.js", _diagram_script),
            Mount("/static", StaticFiles(packages=[("edda.viewer", "static")])),
            *(Route(kind.path, self._page_of(kind)) for kind in PAGES),
            Route("/{rest:path}", self._nowhere),
        ]

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.close()

    async def close(self) -> None:
        """Give the connections back; the next request makes new ones. A mount is told of no end: call this there."""
        await self._house.close()

    # -- pages -------------------------------------------------------------------------------------------------------

    async def _front(self, request: Request) -> Response:
        return RedirectResponse(asked_of(request).to("/instances"), 303)

    async def _nowhere(self, request: Request) -> Response:
        return self._problem(request, 404, "There is no such page", "Perhaps the address was cut off.")

    def _page_of(self, kind: PageKind) -> Callable[[Request], Any]:
        async def page(request: Request) -> Response:
            return await self._page(request, kind)

        return page

    async def _page(self, request: Request, kind: PageKind) -> Response:
        asked = asked_of(request)
        reads = await self._house.reads()
        facts = await kind.load(reads, asked)
        if facts is None:
            return self._problem(
                request, 404, f"There is no such {kind.title.lower()}", wanted=_wanted(asked), place=kind.place
            )
        shown = kind.view(facts, asked, self._knowledge, now_us=await reads.clock())
        context = {"title": kind.title, **shown, "mark": mark_of(facts)}
        return self._html(request, kind.template, context, place=kind.place)

    def _html(
        self, request: HTTPConnection, template: str, context: Mapping[str, Any], *, place: str = "", status: int = 200
    ) -> HTMLResponse:
        asked = asked_of(request)
        session = request.scope.get("edda.viewer.session", "")
        notice = NOTICES.get(request.query_params.get("notice", ""))
        everywhere = {
            "asked": asked,
            "place": place,
            "navigation": NAVIGATION,
            "database": self._name,
            "actions": self._allow_actions,
            "form_secret": self.sessions.form_secret(session) if session else "",
            "notice": notice,
            "live": asked.to("/live", page=asked.changed().removeprefix(asked.root)) if context.get("mark") else None,
            "mark": None,
            "refresh_seconds": 0,
            "words": words,
        }
        text = self._templates.get_template(template).render({**everywhere, **context})
        return HTMLResponse(text, status)

    def _problem(
        self, request: HTTPConnection, status: int, headline: str, text: str = "", *, wanted: str = "", place: str = ""
    ) -> HTMLResponse:
        """`wanted`: the id or name under which nothing is stored."""
        context = {"title": headline, "headline": headline, "text": text, "wanted": wanted}
        return self._html(request, "problem.html", context, place=place, status=status)

    # -- who is there ------------------------------------------------------------------------------------------------

    def ask_for_token(self, connection: HTTPConnection, wrong: bool) -> Response:
        if path_of(connection) in ("/live", "/value"):
            return PlainTextResponse("This needs the token\n", 401)
        return self._html(connection, "token.html", {"title": "Token", "wrong": wrong}, status=401)

    async def _token(self, request: Request) -> Response:
        """The form of the page that asks for the token."""
        form = await read_form(request)
        if not self.sessions.is_token(form.get("token", "").strip()):
            return self.ask_for_token(request, True)
        response = RedirectResponse(asked_of(request).to("/instances"), 303)
        Guard(request.app, sessions=self.sessions, allowed_hosts=(), ask_for_token=self.ask_for_token).remember(
            request, response
        )
        return response

    # -- changes -----------------------------------------------------------------------------------------------------

    async def _live(self, request: Request) -> Response:
        """Says when the page in `page` has changed since it had the mark in `seen`."""
        address = urlsplit(request.query_params.get("page", ""))
        found = page_at(unquote(address.path))
        if found is None:
            return PlainTextResponse("There is no such page\n", 404)
        if self._streams.full:
            return PlainTextResponse("Too many pages are watched\n", 503, headers={"retry-after": "30"})
        kind, path = found
        asked = Asked(
            root=asked_of(request).root,
            here=here_of(unquote(address.path), path),
            path=path,
            words=_words(parse_qsl(address.query)),
            only_mark=True,
        )

        async def mark() -> str:
            return mark_of(await kind.load(await self._house.reads(), asked))

        stream = self._streams.watch(mark, seen=request.query_params.get("seen", ""))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    # -- whole values ------------------------------------------------------------------------------------------------

    async def _value(self, request: Request) -> Response:
        """A stored value as it is, to be saved: a page shows large ones cut."""
        asked = asked_of(request)
        part, seq, instance_id = asked.word("part"), asked.whole("seq", 0), InstanceId(asked.exact("id"))
        reads = await self._house.reads()
        if seq:
            rows: tuple[Any, ...] = (await reads.history_page(instance_id, from_seq=seq, limit=1)).rows
            found = rows[0] if rows and rows[0].seq == seq else None
        else:
            found = await reads.instance(instance_id)
        value = _part_of(found, part) if found is not None else None
        if value is None:
            return self._problem(request, 404, "There is no such value", wanted=_wanted(asked))
        return download(value, f"{part}-{seq}" if seq else part)

    # -- actions -----------------------------------------------------------------------------------------------------

    async def _act(self, request: Request) -> Response:
        form = await read_form(request)
        if refusal := self._refusal(request, form):
            return refusal
        act = ACTIONS.get(request.path_params["action"])
        if act is None:
            return self._problem(request, 404, "There is no such action", "")
        done = await act(form, asked_of(request), await self._house.hands())
        return RedirectResponse(f"{done.to}?notice={done.notice}", 303)

    def _refusal(self, request: Request, form: Mapping[str, str]) -> Response | None:
        """None: this visitor may do what the form says."""
        if not self._allow_actions:
            return self._only_looks(request)
        session = session_of(request)
        if session == "bearer" or self.sessions.is_form_secret(session, form.get("secret", "")):
            return None
        return self._problem(request, 403, "This form is not one of ours", "Go back, load the page again, and retry.")

    def _only_looks(self, request: Request) -> Response:
        return self._problem(request, 403, "This viewer only looks", "Start it with --allow-actions to act from it.")

    # -- starting ----------------------------------------------------------------------------------------------------

    async def _start_form(self, request: Request) -> Response:
        if not self._allow_actions:
            return self._only_looks(request)
        workflow = asked_of(request).exact("workflow")
        reads = await self._house.reads()
        names = await self._startable(reads)
        if not workflow:
            return self._html(request, "starts.html", {"title": "Start", "names": names}, place="workflows")
        source = await reads.source(workflow)
        if workflow not in names and source is None:
            return self._problem(request, 404, "There is no such workflow", wanted=_wanted(asked_of(request)))
        parameters = self._knowledge.parameters(source, workflow)
        return self._draft(request, starting.new_draft(self._code, workflow, parameters))

    async def _start(self, request: Request) -> Response:
        form = await read_form(request, fields_max=START_FIELDS_MAX)
        if refusal := self._refusal(request, form):
            return refusal
        workflow = asked_of(request).exact("workflow")
        reads = await self._house.reads()
        if workflow not in await self._startable(reads) and await reads.source(workflow) is None:
            return self._problem(request, 404, "There is no such workflow", wanted=_wanted(asked_of(request)))
        draft = starting.draft_of(self._code, workflow, form)
        if wish := form.get("do"):
            return self._draft(request, starting.changed(draft, wish))
        new = starting.made(draft, self._code)
        if isinstance(new, starting.Draft):
            return self._draft(request, new, status=422)
        creation = await (await self._house.hands()).start(new)
        if refused := starting.refused(draft, new, creation):
            return self._draft(request, refused, status=409)
        notice = "started" if creation.created else "started-before"
        return RedirectResponse(f"{asked_of(request).to(instance_path(new.id))}?notice={notice}", 303)

    def _draft(self, request: Request, draft: starting.Draft, *, status: int = 200) -> Response:
        context = {"title": f"Start {draft.workflow}", "draft": draft, "fields": draft.fields}
        return self._html(request, "start.html", context, place="workflows", status=status)

    async def _startable(self, reads: Reader) -> list[str]:
        """Names: those whose code is here, and those of which the database has instances."""
        counts = await reads.instance_counts()
        known: frozenset[str] = self._code.workflow_names if self._code is not None else frozenset()
        return sorted(known | {count.workflow for count in counts})

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def failures(self) -> dict[Any, Any]:
        """What is answered for each kind of error, on whatever page."""
        return {
            Misread: self._misread,
            PageTokenError: self._misread,
            EddaError: self._failed,
            UnknownOutcome: self._unknown_outcome,
        }

    async def _misread(self, request: Request, error: Exception) -> Response:
        return self._problem(request, 400, "That cannot be asked", str(error))

    async def _failed(self, request: Request, error: Exception) -> Response:
        acting = request.method == "POST"
        log.warning("an action failed" if acting else "the database could not be read", exc_info=error)
        headline = "That did not work" if acting else "The database could not be read"
        return self._problem(request, 503, headline, str(error))

    async def _unknown_outcome(self, request: Request, error: Exception) -> Response:
        log.warning("an action may have failed", exc_info=error)
        text = f"The database broke off before it answered. It may have happened: look, then try again. {error}"
        return self._problem(request, 503, "Nobody knows whether that worked", text)


def asked_of(connection: HTTPConnection) -> Asked:
    path = {name: str(value) for name, value in connection.path_params.items()}
    return Asked(
        root=quote(connection.scope.get("root_path", "")),
        here=here_of(path_of(connection), path),
        path=path,
        words=_words(connection.query_params.multi_items()),
    )


def here_of(path: str, variable: Mapping[str, str]) -> str:
    """A path as it is written in an address."""
    return instance_path(variable["id"]) if "id" in variable else quote(path)


def _words(pairs: Collection[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in pairs if name not in NAMED_WORDS and value}


def _wanted(asked: Asked) -> str:
    return asked.path.get("id") or asked.words.get("name") or asked.words.get("id") or ""


def _part_of(found: Any, part: str) -> str | bytes | None:
    """Of an instance or a row of its history."""
    if part == "output" and isinstance(found.blob, bytes):
        return bytes(found.blob)
    if part == "error":
        return None if isinstance(found, HistoryEvent) else found.error
    return {"input": found.input, "output": found.output}.get(part)


def download(value: str | bytes, name: str) -> Response:
    """It is saved, never shown: what is in it cannot run here."""
    suffix, kind = (
        ("json", "text/plain; charset=utf-8") if isinstance(value, str) else ("bin", "application/octet-stream")
    )
    return Response(
        value, headers={"content-type": kind, "content-disposition": f'attachment; filename="{name}.{suffix}"'}
    )


async def _diagram_style(_: Request) -> Response:
    return Response(visualizer.style_sheet(), media_type="text/css")


async def _diagram_script(_: Request) -> Response:
    script = files("edda.visualizer").joinpath("diagram.js").read_text("utf-8")
    return Response(script, media_type="text/javascript")
