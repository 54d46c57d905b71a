"""Judging images: MARS² by a multimodal model, its scores, and the standard similarities."""

from lorarar.judging.judges import find_judge, judge_files, remembered
from lorarar.judging.local import local_judge
from lorarar.judging.mars2 import (
    IMAGE,
    PAPER,
    STYLE_PROMPT,
    SUBJECT_PROMPT,
    SYSTEM,
    Ask,
    Axis,
    Question,
    Verdicts,
    Wording,
    conversation,
    judge,
    majority,
    said_yes,
    votes,
)
from lorarar.judging.scores import by_pair, heat_maps
from lorarar.judging.served import served_judge
from lorarar.judging.similarity import (
    Encoder,
    embed_images,
    embed_texts,
    image_similarity,
    load_encoder,
    measure_files,
    text_similarity,
)
from lorarar.judging.wordings import WORDINGS

__all__ = [
    "IMAGE",
    "PAPER",
    "STYLE_PROMPT",
    "SUBJECT_PROMPT",
    "SYSTEM",
    "WORDINGS",
    "Ask",
    "Axis",
    "Encoder",
    "Question",
    "Verdicts",
    "Wording",
    "by_pair",
    "conversation",
    "embed_images",
    "embed_texts",
    "find_judge",
    "heat_maps",
    "image_similarity",
    "judge",
    "judge_files",
    "load_encoder",
    "local_judge",
    "majority",
    "measure_files",
    "remembered",
    "said_yes",
    "served_judge",
    "text_similarity",
    "votes",
]
