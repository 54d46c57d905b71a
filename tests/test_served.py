"""A judge behind a real OpenAI-compatible server: `transformers serve` with the miniature as its model.

Between the two stands a relay that can refuse, keep silent or hang up in the middle of an answer.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lorarar.judging import Question, find_judge, judge, local_judge, served_judge
from lorarar.scales import find_scale, local
from lorarar.shoebox.world.world import style_images, subject_images

pytest.importorskip("openai", reason="a served judge needs OpenAI's client: pip install 'lorarar[judge]'")
for module in ("fastapi", "uvicorn"):
    pytest.importorskip(module, reason="needs a server: pip install 'transformers[serving]'")

pytestmark = pytest.mark.slow
FOLDER = str(local(find_scale("shoebox").judge))


class Relay(ThreadingHTTPServer):
    """Passes requests on to a server; ``faults`` has what to do instead of it with the next ones."""

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), Handler)
        self.port, self.faults, self.requests, self.lock = port, [], 0, threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.requests += 1
            fault = self.server.faults.pop(0) if self.server.faults else None
        with contextlib.suppress(ConnectionError):  # whoever asked may have given up
            if fault == "busy":
                self.send_response(429)
                self.send_header("Retry-After", "0.01")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "silent":
                time.sleep(3)
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.server.port}{self.path}", body, {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    status, text = reply.status, reply.read()
            except urllib.error.HTTPError as error:
                status, text = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text[: len(text) // 2] if fault == "half" else text)
            if fault == "half":
                self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
        port = free.server_port
    log = tmp_path_factory.mktemp("served") / "log"
    command = [sys.executable, str(Path(__file__).with_name("serve_judge.py")), FOLDER, str(port)]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ})
    for _ in range(1200):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    with Relay(port) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def pictures():
    return {
        "images": np.concatenate([subject_images("dog #1", 2), style_images("oil painting #1", 2)[0]]),
        "subject": subject_images("dog #1", 2, seed=1),
        "style": style_images("oil painting #1", 2, seed=1)[0],
    }


def test_verdicts_are_the_local_judges(relay, pictures):
    asked = (pictures["images"], pictures["subject"], pictures["style"], "oil painting")
    here = judge(local_judge(FOLDER, "cpu"), *asked)
    there = judge(find_judge(relay.url, model=FOLDER), *asked)
    assert 0 < here.subject.sum() < len(here.subject)  # it says both yes and no
    for axis in ("subject", "style", "right"):
        np.testing.assert_array_equal(getattr(there, axis), getattr(here, axis))


@pytest.mark.parametrize("fault", ["busy", "half", "silent"])
def test_what_passes_is_tried_again(relay, pictures, fault):
    question = Question("subject", pictures["subject"][0], pictures["images"][0])
    want = local_judge(FOLDER, "cpu")([question])
    relay.requests, relay.faults = 0, [fault, fault]
    timeout = 1.5 if fault == "silent" else 60
    assert served_judge(relay.url, model=FOLDER, timeout=timeout, parallel=1)([question]) == want
    assert relay.requests == 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("busy", r"HTTP 429 .* \(2 tries\)$"),
        ("half", r"\(2 tries\)$"),
        ("silent", r"no answer within 0\.5 s \(2 tries\)$"),
    ],
)
def test_what_stays_is_told_in_one_line(relay, pictures, fault, said):
    question = Question("subject", pictures["subject"][0], pictures["images"][0])
    relay.faults = [fault] * 2
    with pytest.raises(ValueError, match=said) as caught:
        served_judge(relay.url, model=FOLDER, timeout=0.5 if fault == "silent" else 60, tries=2)([question])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"judge {relay.url}/chat/completions: ")


def test_a_model_that_is_not_served_is_refused_at_once(relay, pictures):
    question = Question("subject", pictures["subject"][0], pictures["images"][0])
    relay.requests = 0
    with pytest.raises(ValueError, match=r"HTTP 400 ") as caught:
        served_judge(relay.url, model="nothing")([question])
    assert "\n" not in str(caught.value) and relay.requests == 1
