"""The pages as a web application for one person on this machine: Starlette, Jinja, and what keeps others out.

Every page is a GET whose query string is the whole view. Two POSTs change something, and only ``marks.jsonl``: they
want a token that only our pages have, from our own origin. Nothing is loaded from anywhere, whatever a model wrote into
a text; a host name that is not this machine's is refused, or a page elsewhere could read this one by DNS rebinding.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from pipeline.base import files
from pipeline.base import marks as marked
from pipeline.base.errors import PipelineError
from pipeline.browsing.catalog import NAMES, Catalog, Entry
from pipeline.browsing.pictures import NoPicture, picture
from pipeline.browsing.shown import Reader, ShownPrompt, digest, key_at
from pipeline.browsing.view import PAGE, View
from pipeline.publishing.evaluation_rows import number
from pipeline.publishing.outcomes import UNFINISHED
from pipeline.publishing.report import TEMPLATES
from pipeline.running.store import Run

_HERE = Path(__file__).parent
#: The only names by which this machine calls itself.
HOSTS = ("127.0.0.1", "localhost")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
#: Bytes of a form; a real one has some hundred.
_LONGEST_FORM = 20_000

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Refused(Exception):
    """What cannot be shown or done: the status of the answer, and one sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Headers:
    """Puts ``HEADERS`` on every answer, those of refusals too."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                ours = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *(own for own in ours if own[0] not in given)]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Pages:
    """State: the catalog, and the marks that this process has set, for ``undo``."""

    def __init__(self, runs: tuple[Run, ...]) -> None:
        self.catalog = Catalog(runs)
        self.readers = tuple(Reader(run, name) for run, name in zip(self.catalog.runs, NAMES, strict=False))
        self.token = secrets.token_urlsafe(24)
        self._done: list[tuple[Run, marked.PairKey, str | None]] = []
        self._lock = threading.Lock()
        self._facets: Any = None
        self._without_pair = 0
        environment = Environment(
            loader=FileSystemLoader([_HERE / "templates", TEMPLATES]), undefined=StrictUndefined, autoescape=True,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        environment.filters["number"] = number
        environment.filters["breakable"] = lambda name: escape(name).replace(".", Markup(".<wbr>"))
        environment.globals["names"] = _names([Path(files.absolute(run.path)) for run in runs])
        self._templates = environment

    def overview(self, request: Request) -> Response:
        view = View.read(request.query_params)
        if request.url.query and f"?{request.url.query}" != view.link():
            return RedirectResponse(f"/{view.link()}", 303)  # what a form leaves empty makes no link
        marks = self._marks()
        entries = self.catalog.search(view, _ids(marks, view))
        pages = max(1, -(-len(entries) // PAGE))
        page = min(view.page, pages)
        there = self.catalog.entries(entries[(page - 1) * PAGE : page * PAGE])
        return self._page(
            "list.html.j2", view, marks, f"/{view.link()}",
            rows=self._prompts(there, marks), matches=len(entries), page=page, pages=pages,
        )  # fmt: skip

    def prompt(self, request: Request) -> Response:
        view, prompt_id = View.read(request.query_params), request.query_params.get("id", "")
        entry = self.catalog.entry_of(prompt_id)
        if entry is None:
            raise Refused(404, "There is no prompt with this id in the run.")
        marks = self._marks()
        entries = self.catalog.search(view, _ids(marks, view))
        places = (entries == entry.entry).nonzero()[0]
        place = int(places[0]) if len(places) else None
        beside: dict[str, str | None] = {"prev": None, "next": None}
        if place is not None:
            for name, other in (("prev", place - 1), ("next", place + 1)):
                if 0 <= other < len(entries):
                    (neighbour,) = self.catalog.entries(entries[other : other + 1])
                    beside[name] = prompt_link(neighbour.id, view)
            view = View.read({**request.query_params, "page": str(place // PAGE + 1)})
        ((_, shown),) = self._prompts([entry], marks)
        return self._page(
            "prompt.html.j2",
            view,
            marks,
            prompt_link(prompt_id, view),
            entry=entry,
            shown=shown,
            place=place,
            matches=len(entries),
            **beside,
        )

    def image(self, request: Request) -> Response:
        query = request.query_params
        run, shard, at = query.get("run", "a"), query.get("shard", ""), query.get("n", "")
        if not (
            run in NAMES[: len(self.readers)] and shard.isascii() and shard.isdigit() and at.isascii() and at.isdigit()
        ):
            raise Refused(404, "There is no such image.")
        try:
            image = picture(
                self.catalog.runs[NAMES.index(run)], int(shard), query.get("id", ""), int(at), "small" in query
            )
        except NoPicture as error:
            raise Refused(404, f"There is no image to show: {error}.") from error
        return Response(image.data, media_type=image.media_type, headers={"Cache-Control": "private, max-age=600"})

    def style(self, request: Request) -> Response:
        palette = (TEMPLATES / "palette.css").read_text(encoding="utf-8")
        return Response(palette + (_HERE / "static" / "browse.css").read_text(encoding="utf-8"), media_type="text/css")

    def script(self, request: Request) -> Response:
        return Response((_HERE / "static" / "browse.js").read_bytes(), media_type="text/javascript")

    def no_icon(self, request: Request) -> Response:
        return Response(status_code=204)

    async def mark(self, request: Request) -> Response:
        form = await self._form(request)
        return await run_in_threadpool(self._set_mark, form)

    async def undo(self, request: Request) -> Response:
        form = await self._form(request)
        return await run_in_threadpool(self._undo, form)

    def refusal(self, request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, Refused) else 409
        text = self._templates.get_template("refused.html.j2").render(status=status, reason=str(error))
        return Response(text, status, media_type="text/html")

    async def _form(self, request: Request) -> dict[str, str]:
        """The fields of a form of our own pages.

        Raises:
            Refused: it is somebody else's.
        """
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{request.headers['host']}":
            raise Refused(403, "Marks are set from the pages of this server alone.")
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise Refused(403, "Marks are set from the pages of this server alone.")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _LONGEST_FORM:
                raise Refused(413, "The form is too long.")
        fields = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        if not secrets.compare_digest(fields.get("token", "").encode(), self.token.encode()):
            raise Refused(403, "The page is from an earlier start of this server; load it again.")
        return fields

    def _set_mark(self, form: Mapping[str, str]) -> Response:
        run, mark = form.get("run", "a"), form.get("mark", "") or None
        if run not in NAMES[: len(self.readers)] or mark not in (None, *marked.MARKS):
            raise Refused(400, "There is no such run, or no such mark.")
        reader, entry = self.readers[NAMES.index(run)], self.catalog.entry_of(form.get("id", ""))
        shard = entry.shards[NAMES.index(run)] if entry is not None else None
        row = reader.rows([(shard, entry.id)]).get(entry.id) if entry is not None else None
        pair = form.get("pair", "")
        key = key_at(row, int(pair)) if row is not None and pair.isascii() and pair.isdigit() else None
        if key is None or digest(key) != form.get("digest"):
            raise Refused(409, "The run has another pair there by now; load the page again.")
        with self._lock:
            before = marked.put(reader.run.path, key, mark)
            self._done.append((reader.run, key, before))
        return _back(form, f"pair-{run}-{digest(key)}")

    def _undo(self, form: Mapping[str, str]) -> Response:
        with self._lock:
            if not self._done:
                raise Refused(409, "There is nothing to undo.")
            run, key, before = self._done.pop()
            marked.put(run.path, key, before)
        return _back(form, "")

    def _marks(self) -> tuple[marked.Marks, ...]:
        """Of each run, those of pairs that it makes."""
        marks = [marked.read(reader.run.path) for reader in self.readers]
        with self._lock:
            self.catalog.refresh()
            if self.catalog.facets is not self._facets:  # read anew
                self._facets = self.catalog.facets
                for reader in self.readers:
                    reader.forget()
            holding = tuple(
                reader.holding(of_run, self.catalog.shards({key.id for key in of_run}, at))
                for at, (reader, of_run) in enumerate(zip(self.readers, marks, strict=True))
            )
            self._without_pair = sum(map(len, marks)) - sum(map(len, holding))
            return holding

    def _prompts(
        self, entries: list[Entry], marks: tuple[marked.Marks, ...]
    ) -> list[tuple[Entry, list[ShownPrompt | None]]]:
        """Each entry with its prompt in each run."""
        by_run = [
            reader.rows((entry.shards[at], entry.id) for entry in entries) for at, reader in enumerate(self.readers)
        ]
        return [
            (
                entry,
                [
                    reader.show(rows[entry.id], entry.outcomes[at] or "", marks[at]) if entry.id in rows else None
                    for at, (reader, rows) in enumerate(zip(self.readers, by_run, strict=True))
                ],
            )
            for entry in entries
        ]

    def _page(self, template: str, view: View, marks: tuple[marked.Marks, ...], here: str, **values: Any) -> Response:
        """``here`` is where a form leads back to."""
        text = self._templates.get_template(template).render(
            view=view,
            here=here,
            catalog=self.catalog,
            facets=self.catalog.facets[NAMES.index(view.run)] if view.run in NAMES[: len(self.readers)]
            else self.catalog.facets[0],
            legends=[reader.truth.legend for reader in self.readers],
            marked=sum(map(len, marks)),
            without_pair=self._without_pair,
            kinds=marked.MARKS,
            unfinished=UNFINISHED,
            undoable=len(self._done),
            token=self.token,
            prompt_link=prompt_link,
            **values,
        )  # fmt: skip
        return Response(text, media_type="text/html")


def _names(paths: Sequence[Path]) -> list[str]:
    """What the runs are called: by their folders, and by those above where these are called the same.

    >>> _names([Path("/runs/a"), Path("/runs/b")]), _names([Path("/old/a"), Path("/new/a")])
    (['a', 'b'], ['old/a', 'new/a'])
    """
    for parts in (1, 2):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def prompt_link(prompt_id: str, view: View) -> str:
    """
    >>> prompt_link("a b", View(q="x", page=3))
    '/prompt?id=a+b&q=x'
    """
    return f"/prompt?{urlencode({'id': prompt_id})}{view.query.link().replace('?', '&', 1)}"


def app(runs: tuple[Run, ...]) -> Starlette:
    """
    Raises:
        InputError: one of the runs has no source.
    """
    pages = Pages(runs)
    pages.catalog.refresh()
    return Starlette(
        routes=[
            Route("/", pages.overview),
            Route("/prompt", pages.prompt),
            Route("/image", pages.image),
            Route("/browse.css", pages.style),
            Route("/browse.js", pages.script),
            Route("/favicon.ico", pages.no_icon),
            Route("/mark", pages.mark, methods=["POST"]),
            Route("/undo", pages.undo, methods=["POST"]),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
        ],
        exception_handlers={Refused: pages.refusal, PipelineError: pages.refusal},
    )


def _ids(marks: tuple[marked.Marks, ...], view: View) -> dict[str, set[str]]:
    return marked.ids(marks[NAMES.index(view.run)] if NAMES.index(view.run) < len(marks) else marks[0])


def _back(form: Mapping[str, str], anchor: str) -> Response:
    """To the page that a form was on; nowhere else, whatever it says."""
    back = form.get("back", "/")
    plain = back.startswith("/") and not back.startswith(("//", "/\\"))
    return RedirectResponse(f"{back if plain else '/'}{f'#{anchor}' if anchor else ''}", 303)
