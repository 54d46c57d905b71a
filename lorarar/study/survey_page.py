"""The web page of a study among people: plain pages and forms, served by Tornado from the study's file.

    /                 what it is about, what is kept, and the button that agrees
    /p/TOKEN          the instruction, the worked example, the participant's own link
    /p/TOKEN/PLACE    a question; its form posts the answer
    /p/TOKEN/done     thanks

An answer is confirmed when it is on the disk, and only then does the next page open. Sent again, from a
second tab or after a lost connection, it is the same answer. Nothing is logged of those who ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import Any

from tornado import httpserver, template, web

from lorarar.study.answers import NotKept, Study
from lorarar.study.survey import CHOICES, FORMS, Question, order

PAGES = Path(__file__).parent / "pages"
SECONDS = 8
"""How long a question is supposed to take, for "about … minutes"."""

SIDES = ("left", "similar", "right")
"""What a page's buttons send: nothing on a page says which method is which."""


def application(study: Study, contact: str = "") -> web.Application:
    """Return the web application of a study.

    Args:
        study: the open study.
        contact: whom participants can ask, in words; may be empty.
    """
    given = {"study": study, "contact": contact}
    token = r"/p/([\w-]{8,64})"
    return web.Application(
        [
            ("/", _Consent, given),
            (token, _Begin, given),
            (rf"{token}/(\d{{1,6}})", _Question, given),
            (rf"{token}/done", _Done, given),
            (rf"{token}/withdraw", _Withdraw, given),
            ("/withdrawn", _Withdrawn, given),
            (r"/picture/([\w-]+)\.png", _Picture, given),
            (r"/(page\.css|page\.js)", web.StaticFileHandler, {"path": str(PAGES)}),
        ],
        default_handler_class=_Nowhere,
        default_handler_args=given,
        template_path=str(PAGES),
        log_function=lambda handler: None,  # addresses are personal data
        compress_response=True,
    )


def rendered(page: str, **values: Any) -> str:
    """Return one of the pages as HTML; what it needs stands in its template in ``pages``."""
    return template.Loader(str(PAGES)).load(page).generate(**values).decode()


def asked(question: Question, swapped: bool, form: str) -> dict[str, Any]:
    """Return what the page of a question shows: its pictures from left to right, and its buttons."""
    subject, style, first, second = question.pictures
    buttons = zip(SIDES, FORMS[form].buttons, strict=True)
    return {
        "form": FORMS[form],
        "pictures": (subject, style, *((second, first) if swapped else (first, second))),
        "buttons": [(side, words) for side, words in buttons if words],
    }


def choice(side: str, swapped: bool) -> str:
    """Return the choice (`CHOICES`) that the button of a side stands for."""
    return CHOICES[:: -1 if swapped else 1][SIDES.index(side)]


def side(choice: str, swapped: bool) -> str:
    """Return the side whose button stands for a choice."""
    return SIDES[CHOICES[:: -1 if swapped else 1].index(choice)]


def serve(study: Study, host: str, port: int, contact: str = "") -> None:
    """Serve a study until the process is asked to end, and say where.

    Raises:
        OSError: the port is taken.
    """

    async def run() -> None:
        server = httpserver.HTTPServer(application(study, contact), max_body_size=10_000, xheaders=True)
        server.listen(port, host)
        ends = asyncio.Event()
        for one in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows has Ctrl-C alone
                asyncio.get_running_loop().add_signal_handler(one, ends.set)
        print(f"http://{host}:{port}", flush=True)
        await ends.wait()
        server.stop()  # connections that a browser opened in advance are not waited for

    asyncio.run(run())


class _Page(web.RequestHandler):
    """What all pages share: the study, their headers, the words for what went wrong."""

    def initialize(self, study: Study, contact: str) -> None:
        self.study, self.contact = study, contact
        self.form = study.about["form"]

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Content-Security-Policy", "default-src 'self'; img-src 'self' data:")

    def show(self, page: str, **values: Any) -> None:
        count = len(self.study.questions)
        self.render(page, **{"count": count, "contact": self.contact, "form": FORMS[self.form], **values})

    def next_place(self, token: str, given: dict[int, str], after: int = 0) -> str:
        """Return the next place without an answer, after a place and then from the start; or "done"."""
        places = [i for i, (q, _) in enumerate(order(token, self.study.questions), 1) if q.id not in given]
        return str(next((place for place in places if place > after), places[0] if places else "done"))

    def check(self, token: str) -> None:
        if not self.study.knows(token):
            raise web.HTTPError(404)

    def not_kept(self, error: NotKept) -> None:
        print(f"lorarar study: {error}", file=sys.stderr, flush=True)
        self.set_status(507 if error.full else 503)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Retry-After", "10")
        reason = "there is no room left on the server" if error.full else "the server is busy"
        self.finish(
            f"This was not kept: {reason}. Please press again in a while; your other answers are safe."
        )

    def write_error(self, status_code: int, **_: Any) -> None:
        title, text = {
            404: ("There is no such page", "Is the link complete? It ends in sixteen letters or digits."),
            400: ("This is no answer", "Please go back and choose one of the buttons."),
        }.get(status_code, ("Something went wrong", "Nothing that you answered is lost. Please try again."))
        self.show("message.html", title=title, text=text)


class _Nowhere(_Page):
    def prepare(self) -> None:
        raise web.HTTPError(404)


class _Consent(_Page):
    def get(self) -> None:
        self.show("consent.html", minutes=-(-len(self.study.questions) * SECONDS // 60))

    def post(self) -> None:
        try:
            self.redirect(f"/p/{self.study.join()}", status=303)
        except NotKept as error:
            self.not_kept(error)


class _Begin(_Page):
    def get(self, token: str) -> None:
        self.check(token)
        given = self.study.given(token)
        base = f"{self.request.protocol}://{self.request.host}"
        place = self.next_place(token, given)
        self.show("begin.html", token=token, base=base, place=place, answered=len(given))


class _Question(_Page):
    def get(self, token: str, place: str) -> None:
        question, swapped = self._at(token, place)
        given = self.study.given(token)
        self.show(
            "question.html",
            token=token,
            place=int(place),
            answered=len(given),
            chosen=side(given[question.id], swapped) if question.id in given else None,
            **asked(question, swapped, self.form),
        )

    def post(self, token: str, place: str) -> None:
        question, swapped = self._at(token, place)
        answer = self.get_body_argument("answer", "")
        if answer not in [value for value, _ in asked(question, swapped, self.form)["buttons"]]:
            raise web.HTTPError(400)
        try:
            self.study.keep(token, question.id, choice(answer, swapped))
        except NotKept as error:
            self.not_kept(error)
            return
        self.redirect(f"/p/{token}/{self.next_place(token, self.study.given(token), int(place))}", status=303)

    def _at(self, token: str, place: str) -> tuple[Question, bool]:
        self.check(token)
        if not 1 <= int(place) <= len(self.study.questions):
            raise web.HTTPError(404)
        return order(token, self.study.questions)[int(place) - 1]


class _Done(_Page):
    def get(self, token: str) -> None:
        self.check(token)
        place = self.next_place(token, self.study.given(token))
        if place == "done":
            self.show("done.html", token=token)
        else:
            self.redirect(f"/p/{token}/{place}", status=303)


class _Withdraw(_Page):
    def post(self, token: str) -> None:
        try:
            self.study.withdraw(token)
        except NotKept as error:
            self.not_kept(error)
            return
        self.redirect("/withdrawn", status=303)


class _Withdrawn(_Page):
    def get(self) -> None:
        self.show("message.html", title="Your answers are deleted", text="Thank you all the same.")


class _Picture(_Page):
    def get(self, key: str) -> None:
        content = self.study.picture(key)
        if content is None:
            raise web.HTTPError(404)
        self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        self.set_header("Content-Type", "image/png")
        self.finish(content)
