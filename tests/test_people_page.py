"""A study among people in a real browser, Debian's or Ubuntu's Chromium by Playwright: `make test-ui`."""

import shutil

import pytest
from survey import Server, eventually, made_study

from lorarar.study.answers import Study
from lorarar.study.survey import order

playwright = pytest.importorskip("playwright.sync_api", reason="the browser needs Playwright: make test-ui")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if not CHROMIUM:
    pytest.skip("no Chromium on this machine: apt-get install chromium", allow_module_level=True)

pytestmark = pytest.mark.slow
PHONE = {"width": 390, "height": 760}


@pytest.fixture
def path(tmp_path):
    return made_study(tmp_path, "can", "teapot", "glowing")


@pytest.fixture
def server(path):
    server = Server(path)
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def browser():
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, url, size=PHONE):
    page = browser.new_page(viewport=size)
    page.set_default_timeout(60_000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(url)
    return page


def test_a_phone_from_consent_to_thanks(browser, server, path, tmp_path):
    page = opened(browser, server.url)
    page.get_by_role("button", name="I agree").click()
    page.get_by_role("link", name="Begin").wait_for()
    assert page.locator(".example img").count() == 4
    page.screenshot(path=tmp_path / "begin.png", full_page=True)  # to look at
    link = page.url
    page.get_by_role("link", name="Begin").click()
    for place, button in enumerate(("Option 1", "Similar", "Option 2"), 1):
        page.get_by_text(f"{place} of 4").wait_for()
        # Everything that an answer needs is on a phone's screen, and nothing is cut off at its side.
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        for one in (page.locator("img").first, page.get_by_role("button", name="Option 2")):
            box = one.bounding_box()
            assert box["y"] >= 0 and box["y"] + box["height"] <= PHONE["height"]
        assert page.evaluate("[...document.images].every((one) => one.complete && one.naturalWidth)")
        page.screenshot(path=tmp_path / f"question{place}.png")
        page.get_by_role("button", name=button).click()
    page.get_by_text("4 of 4").wait_for()
    page.goto(link)  # come back later
    page.get_by_role("link", name="Go on: 3 of 4 answered").click()
    page.get_by_text("4 of 4").wait_for()
    page.get_by_role("button", name="Similar").click()
    page.get_by_role("heading", name="Thank you").wait_for()
    assert not page.problems
    with Study(path) as study:
        token = link.rpartition("/")[2]
        given, own = study.given(token), order(token, study.questions)
        want = [("second", "first")[not own[0][1]], "similar", ("first", "second")[not own[2][1]], "similar"]
        assert [given[q.id] for q, _ in own] == want


def test_keys_two_tabs_and_withdrawal(browser, server, path):
    page = opened(browser, server.url, {"width": 1200, "height": 900})
    page.get_by_role("button", name="I agree").press("Enter")
    page.get_by_role("link", name="Begin").click()
    page.get_by_text("1 of 4").wait_for()
    other = opened(browser, page.url)  # the same question in a second tab
    page.keyboard.press("1")
    page.get_by_text("2 of 4").wait_for()
    other.keyboard.press("1")
    other.get_by_text("2 of 4").wait_for()
    with Study(path) as study:
        assert len(study.answers()) == 1
    page.get_by_role("link", name="Back").click()
    assert page.locator("button.chosen").inner_text().startswith("Option 1")
    page.keyboard.press("2")
    page.get_by_text("2 of 4").wait_for()
    with Study(path) as study:
        assert [one.choice for one in study.answers()] == ["similar"]
    page.get_by_role("link", name="Instruction").click()
    page.get_by_text("Withdraw").click()
    page.get_by_role("button", name="Delete my answers").click()
    page.get_by_role("heading", name="Your answers are deleted").wait_for()
    with Study(path) as study:
        assert study.answers() == []


def test_an_answer_without_a_server_is_said_and_sent_again(browser, server, path):
    page = opened(browser, server.url)
    page.get_by_role("button", name="I agree").click()
    page.get_by_role("link", name="Begin").click()
    page.get_by_text("1 of 4").wait_for()
    server.kill()
    page.get_by_role("button", name="Option 2").click()
    page.get_by_text("No connection, so this was not kept. Please press again.").wait_for()
    again = eventually(lambda: Server(path, server.port))
    try:
        page.get_by_role("button", name="Option 2").click()
        page.get_by_text("2 of 4").wait_for()
    finally:
        again.stop()
    with Study(path) as study:
        assert len(study.answers()) == 1
