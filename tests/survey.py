"""Made-up cells for tests of studies among people: images of one colour each, and verdicts that are given."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from lorarar.study.answers import Study
from lorarar.study.cells import cell_of, setting
from lorarar.study.questions import draw

METHODS = ("lorarar", "ziplora")


def made_cells(folder, methods=METHODS, split="test", count=4, names=None, right=None):
    """Cells of every pair; ``right(method, pair's place)`` gives the verdicts on its images, default all."""
    run = setting(split, out=folder / "cells", count=count, names=names, progress=False)
    rng = np.random.default_rng(0)
    for method in methods:
        for p, pair in enumerate(run.pairs):
            cell = cell_of(run, method, pair)
            cell.mkdir(parents=True)
            colours = rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
            strip = np.concatenate(list(np.broadcast_to(colours, (count, 8, 8, 3))), axis=1)
            Image.fromarray(strip).save(cell / "images.png")
            facts = {"subject": pair[0], "style": pair[1], "seeds": run.seeds}
            (cell / "cell.json").write_text(json.dumps(facts))
            said = [1] * count if right is None else [int(yes) for yes in right(method, p)]
            verdict = {"judge": "critic", "digest": "", "subject": said, "style": said}
            (cell / "verdicts-critic.json").write_text(json.dumps(verdict))
    return run


@cache
def drawn(names):
    with tempfile.TemporaryDirectory() as folder:
        return draw(made_cells(Path(folder), names=names), "lorarar")


def made_study(folder, *names):
    """The file of a study of made-up cells, on the test's pairs or those of some names."""
    questions, pictures, left_out = drawn(names or None)
    path = folder / "people.sqlite"
    about = {"form": "lorarar", "judge": "critic", "left out": left_out}
    Study.create(path, about, questions, pictures)
    return path


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Server:
    """`lorarar study serve` in a process of its own."""

    def __init__(self, path, port=None, **options):
        self.port = port or free_port()
        command = [sys.executable, "-m", "lorarar.cli", "study", "serve", str(path), "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ, **options
        )
        line = self.process.stdout.readline()
        assert line.strip() == self.url, self.process.stderr.read()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def stop(self):
        """End it as a person would, and return what it said on standard error."""
        self.process.terminate()
        said = self.process.communicate(timeout=20)[1]
        assert self.process.returncode == 0, said
        return said


class Visitor:
    """Someone at the page without a browser: follows no redirects, keeps no cookies."""

    def __init__(self, port):
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, method, path, **fields):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self.connection.request(method, path, urllib.parse.urlencode(fields), headers)
        reply = self.connection.getresponse()
        return reply.status, reply.headers, reply.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def join(self):
        status, headers, _ = self.ask("POST", "/")
        assert status == 303
        return re.fullmatch(r"/p/([\w-]{16})", headers["Location"])[1]


def eventually(what, seconds=20):
    """Call until it does not fail for want of a connection."""
    ends = time.monotonic() + seconds
    while True:
        try:
            return what()
        except (OSError, http.client.HTTPException):
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
