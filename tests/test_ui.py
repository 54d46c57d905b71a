"""The page of `lorarar ui` in a real browser: Debian's or Ubuntu's Chromium, driven by Playwright.

What it needs is not among the pins: Gradio holds other versions back. `make test-ui` makes an environment for
it, and a job of its own in continuous integration runs that.
"""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("gradio", reason="the page needs Gradio: make test-ui")
playwright = pytest.importorskip("playwright.sync_api", reason="the browser needs Playwright: make test-ui")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if not CHROMIUM:
    pytest.skip("no Chromium on this machine: apt-get install chromium", allow_module_level=True)

pytestmark = pytest.mark.slow
LAYER = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"


def lora_file(path, seed):
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(6, 2, generator=generator), torch.randn(2, 2048, generator=generator)
    save_file({f"{LAYER}.lora_B.weight": up, f"{LAYER}.lora_A.weight": down}, path)
    return up.double().numpy() @ down.double().numpy()


@pytest.fixture(scope="module")
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lorarar.cli", "ui", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    url = f"http://127.0.0.1:{port}/"
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.2)
    yield url
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode in (0, 130)


@pytest.fixture
def page(address):
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1500})
        page.set_default_timeout(60_000)
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        page.get_by_role("button", name="Merge").wait_for()
        yield page
        browser.close()
        assert not problems


def choose(page, content, style):
    files = page.locator("input[type=file]")
    for i, path in ((1, style), (0, content)):  # the field of a file that is chosen is gone
        files.nth(i).set_input_files(path)
    for name in ("Content (subject)", "Style"):
        said = page.get_by_label(f"{name}: what is in it")
        page.wait_for_function("e => e.value", arg=said.element_handle())


def merge(page):
    page.get_by_role("button", name="Merge").click()
    result = page.get_by_label("Result")
    page.wait_for_function("e => e.value", arg=result.element_handle())
    return result.input_value()


def test_two_files_in_a_report_and_the_merged_file_out(page, tmp_path):
    one, two = (lora_file(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate(("cat", "oil")))
    choose(page, tmp_path / "cat.safetensors", tmp_path / "oil.safetensors")
    assert "SDXL" in page.get_by_label("Content (subject): what is in it").input_value()
    weight = page.get_by_label("number input for Style weight")
    weight.fill("0.5")
    weight.press("Enter")
    said = merge(page)
    assert "SDXL" in said and "direct" in said
    page.screenshot(path=tmp_path / "page.png")  # to look at
    with page.expect_download() as caught:
        page.locator("a[download]").last.click()
    merged = load_file(caught.value.path())
    assert caught.value.suggested_filename == "cat-oil.safetensors"
    got = (
        merged[f"{LAYER}.lora_B.weight"].double().numpy() @ merged[f"{LAYER}.lora_A.weight"].double().numpy()
    )
    np.testing.assert_allclose(got, one + 0.5 * two, rtol=0, atol=1e-5)


def test_what_cannot_be_merged_is_said_in_one_line(page, tmp_path):
    lora_file(tmp_path / "cat.safetensors", 0)
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    choose(page, tmp_path / "cat.safetensors", tmp_path / "page.safetensors")
    said = merge(page)
    assert "page.safetensors" in said and "\n" not in said and "Traceback" not in said
    assert page.locator("a[download]").count() == 2  # the two that were chosen
