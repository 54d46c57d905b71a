"""Studies among people: what is asked, that no answer is lost, and what the answers come to."""

import csv
import itertools
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats
from survey import METHODS, Server, Visitor, eventually, made_cells, made_study
from tornado.testing import AsyncHTTPTestCase

from lorarar.cli import main
from lorarar.study import people, power, preference, survey
from lorarar.study import questions as drawing
from lorarar.study.answers import Answer, NotKept, Study
from lorarar.study.survey_page import application

# --- what is asked ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_papers_form_asks_about_every_pair_in_both_scenarios(tmp_path):
    run = made_cells(tmp_path)
    questions, pictures, left_out = drawing.draw(run, "lorarar")
    assert Counter(q.part for q in questions) == {"random": 25, "best": 25} and not left_out
    assert {(q.subject, q.style) for q in questions} == set(run.pairs)
    for q in questions:
        assert q.methods == METHODS and set(q.pictures) <= pictures.keys()
        assert q.part == "best" or q.seeds[0] == q.seeds[1]  # random: one noise for both methods
    again, *_ = drawing.draw(run, "lorarar")
    assert again == questions


def test_the_best_scenario_shows_right_images_and_leaves_out_pairs_without(tmp_path):
    def right(
        method, pair
    ):  # ZipLoRA has no right image of pair 3, LoRA.rar's only one of pair 5 is its third
        if (method, pair) == ("ziplora", 3):
            return [0] * 4
        return [0, 0, 1, 0] if (method, pair) == ("lorarar", 5) else [0, 1, 1, 0]

    run = made_cells(tmp_path, right=right)
    questions, _, left_out = drawing.draw(run, "lorarar", scenarios=["best"])
    assert left_out == {"best": 1} and len(questions) == 24
    assert run.pairs[3] not in {(q.subject, q.style) for q in questions}
    assert all(q.right == (True, True) for q in questions)
    fifth = next(q for q in questions if (q.subject, q.style) == run.pairs[5])
    assert fifth.seeds[0] == 2 and fifth.shares == (0.25, 0.5)


def test_ziploras_form_has_eight_questions_for_each_rival(tmp_path):
    methods = survey.FORMS["ziplora"].methods
    run = made_cells(tmp_path, methods, count=2)
    questions, *_ = drawing.draw(run, "ziplora")
    assert [q.part for q in questions] == [rival for rival in methods[1:] for _ in range(8)]
    assert len(questions) == 40 and {q.methods[0] for q in questions} == {"ziplora"}
    own = survey.order("a token of sixteen", questions)
    assert [q.block for q, _ in own] == sorted(q.block for q in questions)  # one rival after the other


def test_order_and_sides_are_the_participants_own(tmp_path):
    questions, *_ = drawing.draw(made_cells(tmp_path), "lorarar")
    orders = {token: survey.order(token, questions) for token in (f"token-{i}" for i in range(200))}
    assert all(sorted(q.id for q, _ in one) == list(range(50)) for one in orders.values())
    assert len({tuple(q.id for q, _ in one) for one in orders.values()}) == 200
    left = sum(swapped for one in orders.values() for _, swapped in one)
    first = Counter(one[0][0].part for one in orders.values())
    assert stats.binomtest(left, 200 * 50).pvalue > 1e-3
    assert stats.binomtest(first["best"], 200).pvalue > 1e-3
    # Word for word the same on any machine: what a link shows must not change under a participant.
    assert [q.id for q, _ in survey.order("a link", questions)][:4] == KNOWN_ORDER


KNOWN_ORDER = [31, 0, 7, 42]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--methods", "lorarar"], "expected two different methods"),
        (["--methods", "lorarar", "lorarar"], "expected two different methods"),
        (["--methods", "lorarar", "nothing"], "no method 'nothing'"),
        (["--scenarios", "worst"], "no scenario 'worst'"),
        (["--judge", "none"], "name a judge"),
        ([], "make the images, then the verdicts"),
        (["--judge", "none", "--scenarios", "random"], "make it with `lorarar study images --split test`"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(tmp_path, capfd, options, said):
    output = tmp_path / "people.sqlite"
    cells = ["--cells", str(tmp_path / "none")]
    assert main(["study", "questions", "-o", str(output), *cells, *options]) == 2
    err = capfd.readouterr().err
    assert said in err and err.count("\n") == 1 and not output.exists()


# --- the file of a study ---------------------------------------------------------------------------------


def test_an_answer_given_twice_is_one_and_the_last_word_counts(tmp_path):
    path = made_study(tmp_path)
    with Study(path) as one, Study(path) as tab:
        token = one.join()
        one.keep(token, 7, "first")
        tab.keep(token, 7, "first")
        assert len(one.answers()) == 1
        tab.keep(token, 7, "similar")
        assert one.given(token) == {7: "similar"}
        for wrong in ((token, 7, "both"), ("nobody-of-that-name", 7, "first")):
            with pytest.raises(ValueError, match="no "):
                one.keep(*wrong)


def test_who_withdraws_is_forgotten(tmp_path):
    path = made_study(tmp_path)
    with Study(path) as study:
        stays, leaves = study.join(), study.join()
        for token in (stays, leaves):
            study.keep(token, 0, "first")
        study.withdraw(leaves)
        assert not study.knows(leaves) and [a.participant for a in study.answers()] == [1]
        study.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert leaves.encode() not in path.read_bytes() and stays.encode() in path.read_bytes()


def test_a_full_file_loses_nothing_and_takes_the_answer_when_there_is_room(tmp_path):
    path = made_study(tmp_path)
    with Study(path) as study:
        token = study.join()
        (pages,) = study.db.execute("PRAGMA page_count").fetchone()
        study.db.execute(f"PRAGMA max_page_count = {pages}")
        kept = set()
        with pytest.raises(NotKept, match="the disk is full") as caught:
            for one in itertools.chain([token], (study.join() for _ in range(10_000))):
                for question in range(50):
                    study.keep(one, question, "second")
                    kept.add((one, question))
        assert caught.value.full
        study.db.execute(f"PRAGMA max_page_count = {2 * pages + 100}")
        more = study.join()
        study.keep(more, 0, "first")
        tokens = dict(study.db.execute("SELECT id, token FROM participants"))
        written = {(tokens[a.participant], a.question.id) for a in study.answers()}
        assert written == kept | {(more, 0)}


@pytest.mark.parametrize("content", [b"", b"no database\n" * 500, None])
def test_another_file_is_refused(tmp_path, capfd, content):
    path = tmp_path / "people.sqlite"
    if content is None:
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE answers (x)")
        db.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    for step in ("serve", "export", "analyse"):
        assert main(["study", step, str(path)]) == 2
        err = capfd.readouterr().err
        assert "people.sqlite" in err and err.count("\n") == 1
    assert main(["study", "serve", str(tmp_path / "missing")]) == 2
    assert "lorarar study questions" in capfd.readouterr().err
    assert path.read_bytes() == before


def test_a_study_is_never_overwritten(tmp_path):
    path = made_study(tmp_path)
    with pytest.raises(ValueError, match="may hold answers"):
        Study.create(path, {}, [], {})


# --- the page --------------------------------------------------------------------------------------------


class Page(AsyncHTTPTestCase):
    """The application in this process, so that its file can be filled."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, capfd):
        self.path, self.said = made_study(tmp_path, "can", "teapot", "glowing"), capfd

    def get_app(self):
        self.study = Study(self.path)
        return application(self.study, contact="Ask at the desk.")

    def tearDown(self):
        super().tearDown()
        self.study.db.close()

    def get(self, path, **options):
        return self.fetch(path, follow_redirects=False, **options)

    def post(self, path, body=""):
        return self.get(path, method="POST", body=body)

    def test_from_consent_to_thanks(self):
        page = self.get("/").body.decode()
        assert "4 times" in page and "no name, no address" in page and "Ask at the desk." in page
        joined = self.post("/")
        assert joined.code == 303 and "Set-Cookie" not in joined.headers
        token = joined.headers["Location"].removeprefix("/p/")
        assert survey.FORMS["lorarar"].instruction.split("(")[0] in self.get(f"/p/{token}").body.decode()
        own = survey.order(token, self.study.questions)
        given = {}
        pressed = zip(("left", "right", "similar", "left"), own, strict=True)
        for place, (side, (question, swapped)) in enumerate(pressed, 1):
            page = self.get(f"/p/{token}/{place}").body.decode()
            shown = [question.pictures[i] for i in ((0, 1, 3, 2) if swapped else (0, 1, 2, 3))]
            at = [page.index(f"/picture/{key}.png") for key in shown]
            assert at == sorted(at) and not any(name in page for name in METHODS)
            reply = self.post(f"/p/{token}/{place}", f"answer={side}")
            assert reply.headers["Location"] == f"/p/{token}/{place + 1 if place < 4 else 'done'}"
            left = "second" if swapped else "first"
            right = "first" if swapped else "second"
            given[question.id] = {"left": left, "right": right, "similar": "similar"}[side]
        assert self.study.given(token) == given
        assert "Thank you" in self.get(f"/p/{token}/done").body.decode()
        assert 'class="chosen"' in self.get(f"/p/{token}/2").body.decode()  # one can look again
        assert self.post(f"/p/{token}/withdraw").headers["Location"] == "/withdrawn"
        assert not self.study.answers()

    def test_what_does_not_exist(self):
        token = self.study.join()
        for path in ("/p/nobody-of-that-name", f"/p/{token}/0", f"/p/{token}/5", "/picture/0.png", "/else"):
            assert self.get(path).code == 404, path
        assert self.post(f"/p/{token}/1", "answer=first").code == 400
        assert self.post(f"/p/{token}/1").code == 400
        assert not self.study.answers()

    def test_a_full_disk_is_said_and_the_answer_can_be_sent_again(self):
        token = self.study.join()
        (pages,) = self.study.db.execute("PRAGMA page_count").fetchone()
        self.study.db.execute(f"PRAGMA max_page_count = {pages}")
        while True:
            reply = self.post("/")
            if reply.code != 303:
                break
        assert reply.code == 507 and b"no room left" in reply.body
        said = self.said.readouterr().err
        assert said == f"lorarar study: {self.path}: the disk is full\n"
        self.study.db.execute(f"PRAGMA max_page_count = {pages + 100}")
        assert self.post("/").code == 303
        assert self.post(f"/p/{token}/1", "answer=left").code == 303

    def test_a_locked_file_is_said(self):
        token = self.study.join()
        self.study.db.execute("PRAGMA busy_timeout = 50")
        with sqlite3.connect(self.path) as other:
            other.execute("BEGIN IMMEDIATE")
            reply = self.post(f"/p/{token}/1", "answer=left")
            assert reply.code == 503 and b"Please press again" in reply.body
            other.rollback()
        other.close()
        assert self.post(f"/p/{token}/1", "answer=left").code == 303

    def test_pictures_and_example(self):
        for path in (f"/picture/{self.study.questions[0].pictures[2]}.png", "/picture/example-3.png"):
            reply = self.get(path)
            assert reply.code == 200 and reply.body[:4] == b"\x89PNG"
        for path, kind in (("/page.css", "text/css"), ("/page.js", "javascript")):
            assert kind in self.get(path).headers["Content-Type"]


@pytest.mark.slow
def test_fifty_people_at_once_and_a_server_that_is_killed_again_and_again(tmp_path):
    """Every answer that was confirmed is in the file, whatever happened meanwhile; none stands twice."""
    path = made_study(tmp_path)
    confirmed, ends = {}, threading.Event()

    def take_part(number):
        rng = np.random.default_rng(number)

        def join():
            with Visitor(server.port) as visitor:
                return visitor.join()

        token = eventually(join, 60)
        for place in range(1, 51):
            side = str(rng.choice(["left", "similar", "right"]))

            def send(place=place, side=side):
                with Visitor(server.port) as visitor:
                    reply = visitor.ask("POST", f"/p/{token}/{place}", answer=side)
                assert reply[0] == 303, reply

            eventually(send, 60)
            confirmed[token, place] = side
        return token

    server = Server(path)

    def kill_again():
        nonlocal server
        rng = np.random.default_rng(0)
        for _ in range(8):
            if ends.wait(float(rng.uniform(0.1, 0.6))):
                return
            server.kill()
            server = Server(path, server.port)

    killer = threading.Thread(target=kill_again)
    killer.start()
    try:
        with ThreadPoolExecutor(50) as pool:
            tokens = list(pool.map(take_part, range(50)))
    finally:
        ends.set()
        killer.join()
        server.stop()
    with Study(path) as study:
        assert study.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert len(study.answers()) == len(confirmed) == 2500
        for token in tokens:
            own, given = survey.order(token, study.questions), study.given(token)
            for place, (question, swapped) in enumerate(own, 1):
                side = confirmed[token, place]
                want = side if side == "similar" else ("first", "second")[(side == "right") != swapped]
                assert given[question.id] == want


@pytest.mark.slow
def test_a_disk_that_refuses_stops_no_server(tmp_path):
    """The system refuses to let the file grow; the server says so in one line and goes on when it may."""
    import resource

    path = made_study(tmp_path, "can", "glowing")
    with Study(path) as study:
        token = study.join()
    server = Server(path)
    visitor, pid = Visitor(server.port), server.process.pid
    try:
        assert visitor.ask("POST", f"/p/{token}/1", answer="left")[0] == 303
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
        status, _, text = visitor.ask("POST", f"/p/{token}/2", answer="left")
        assert status in (503, 507) and b"not kept" in text
        assert visitor.ask("GET", f"/p/{token}/2")[0] == 200
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert visitor.ask("POST", f"/p/{token}/2", answer="left")[0] == 303
    finally:
        visitor.connection.close()
        said = server.stop()
    assert said.count("\n") == 1 and "people.sqlite" in said
    with Study(path) as study:
        assert len(study.answers()) == 2


# --- what the answers come to ----------------------------------------------------------------------------


def test_fleiss_kappa_is_that_of_the_worked_example():
    """Ten subjects, fourteen raters, five categories: κ = 0.210 (Wikipedia, "Fleiss' kappa")."""
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert preference.fleiss_kappa(np.array(counts)) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_at_its_ends():
    assert preference.fleiss_kappa(np.array([[4, 0], [0, 4]])) == pytest.approx(1)
    assert np.isnan(preference.fleiss_kappa(np.array([[4, 0], [4, 0]])))
    rng = np.random.default_rng(0)
    assert abs(preference.fleiss_kappa(rng.multinomial(10, [0.5, 0.3, 0.2], 20_000))) < 0.01


def test_shares_and_intervals_against_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    table = power.simulated(rng, (12, 15), 0.3, 0.2, 0.3, 0.1)
    table[rng.random(table.shape) < 0.15] = np.nan  # some stopped early
    found = preference.preference(table, 4000)
    drawn = []
    for _ in range(4000):  # the definition, one draw at a time
        one = table[np.ix_(rng.integers(12, size=12), rng.integers(15, size=15))]
        drawn.append(np.nanmean(one))
    there = table[~np.isnan(table)]
    assert found["first"].value == pytest.approx((there == 1).mean())
    assert found["lead"].value == pytest.approx(there.mean())
    assert sum(found[name].value for name in survey.CHOICES) == pytest.approx(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found["lead"].low == pytest.approx(low, abs=0.02)
    assert found["lead"].high == pytest.approx(high, abs=0.02)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    tables = power.simulated(rng, (300, 20, 20), 0.2, 0.3, 0.2, 0.1)
    entries = [preference.preference(table, 400)["lead"] for table in tables]
    held = np.mean([entry.low <= 0.2 <= entry.high for entry in entries])
    assert 0.92 < held <= 1


def test_simulated_answers_have_the_shares_that_were_asked_for():
    rng = np.random.default_rng(2)
    table = power.simulated(rng, (2000, 2000), 0.2, 0.3, 0.0, 0.0)
    assert (table == 0).mean() == pytest.approx(0.3, abs=0.005)
    assert table.mean() == pytest.approx(0.2, abs=0.005)
    # Two people's answers to one pair correlate as bivariate normal numbers cut at the same places.
    table = power.simulated(rng, (2, 200_000), 0.0, 0.3, 0.4, 0.0)
    low = stats.norm.ppf(0.35)
    both = stats.multivariate_normal([0, 0], [[1, 0.4], [0.4, 1]]).cdf([low, low])
    assert ((table == -1).all(0)).mean() == pytest.approx(both, abs=0.004)
    for wrong in ({"lead": 0.8, "similar": 0.3}, {"alike": 0.9, "taste": 0.2}):
        with pytest.raises(ValueError, match="shares"):
            asked_for = {"lead": 0.1, "similar": 0.3, "alike": 0.1, "taste": 0.1} | wrong
            power.simulated(rng, (2, 2), **asked_for)


def test_power_is_that_of_a_t_test_where_people_share_nothing():
    """Without pairs' and persons' own parts the crossed interval is wider than needed, never narrower."""
    rng = np.random.default_rng(3)
    alone = {"similar": 0.3, "alike": 0.0, "taste": 0.0}
    tables = power.simulated(rng, (400, 10, 25), 0.2, **alone).reshape(400, -1)
    exact = (stats.ttest_1samp(tables, 0, axis=1).pvalue < 0.05).mean()
    assert power.power(10, 25, 0.2, **alone, studies=400) <= exact
    assert power.power(10, 25, 0.0, **alone, studies=400) <= 0.05
    few, many = (power.power(n, 25, 0.2, studies=400) for n in (5, 50))
    assert few < many


def asked(n, right=None, shares=None):
    return [
        survey.Question(
            i, "random", 0, "can", "glowing", METHODS, (0, 0),
            right[i] if right else None, shares[i] if shares else None, ("a", "b", "c", "d"),
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.slow
def test_people_who_say_what_the_judge_says_agree_with_it_wholly():
    right = [(True, False), (False, True), (True, True), (False, False)] * 3
    shares = [(0.9, 0.1), (0.2, 0.6), (0.5, 0.5), (0.3, 0.3)] * 3
    questions = asked(12, right, shares)
    table = np.tile([1.0, -1.0, 0.0, 0.0] * 3, (6, 1))
    found = preference.with_judge(table, questions)
    assert found["kappa"].value == pytest.approx(1) and found["correlation"].value == pytest.approx(1)
    turned = preference.with_judge(-table, questions)
    assert turned["kappa"].value < 0.3 and turned["correlation"].value == pytest.approx(-1)
    even = [(True, True)] * 12
    assert preference.with_judge(table, asked(12, even, shares))["kappa"] is None
    with pytest.raises(ValueError, match="no verdicts"):
        preference.with_judge(table, asked(12))


def test_a_habit_of_choosing_the_left_is_seen():
    questions = asked(40)
    rng = np.random.default_rng(4)
    answers = []
    for i, q in enumerate(questions):
        swapped = bool(rng.integers(2))
        answers.append(Answer(1, i + 1, q, swapped, "second" if swapped else "first"))
    share, decided, chance = preference.left_share(answers)
    assert share == 1 and decided == 40 and chance < 1e-9


def test_export_and_analysis_from_the_command_line(tmp_path, capfd):
    path = made_study(tmp_path, "can", "teapot", "glowing", "oil painting #2")
    assert main(["study", "analyse", str(path)]) == 2
    assert "no answers yet" in capfd.readouterr().err
    with Study(path) as study:
        for n in range(5):
            token = study.join()
            for q, _ in survey.order(token, study.questions)[: 8 - n]:
                study.keep(token, q.id, "first" if q.part == "random" else "similar")
    table = tmp_path / "answers.csv"
    assert main(["study", "export", str(path), "-o", str(table)]) == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 8 + 7 + 6 + 5 + 4 and tuple(rows[0]) == people.COLUMNS
    assert {r["choice"] for r in rows} == {"lorarar", "similar"}
    assert {r["option_1"] for r in rows} == set(METHODS)
    assert not any(token in table.read_text() for token in [token])
    capfd.readouterr()
    assert main(["study", "analyse", str(path)]) == 0
    said = capfd.readouterr().out
    assert "lorarar                  100% (100% to 100%)" in said and "similar" in said
    assert main(["study", "analyse", str(path), "--json"]) == 0
    assert '"participants": 5' in capfd.readouterr().out
