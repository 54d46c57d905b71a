"""Serve an image-text model in OpenAI's format with `transformers serve`: python serve_judge.py FOLDER PORT.

The processor is loaded by `lorarar.judging`, without its video part, which would want torchvision.
"""

import sys

from transformers import AutoProcessor
from transformers.cli.serve import Serve

from lorarar.judging.local import load_processor

if __name__ == "__main__":
    AutoProcessor.from_pretrained = lambda source, **_: load_processor(source)
    Serve(force_model=sys.argv[1], device="cpu", dtype="float32", host="127.0.0.1", port=int(sys.argv[2]))
