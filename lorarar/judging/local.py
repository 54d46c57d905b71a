"""A judge on this machine: a multimodal model in a folder or on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from tqdm import tqdm

from lorarar.judging.mars2 import IMAGE, PAPER, Ask, Axis, Question, Wording, conversation, meant, shown
from lorarar.judging.served import first_line
from lorarar.judging.wordings import WORDINGS
from lorarar.options import JudgeOptions
from lorarar.pipelines import find_device, quiet

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def without_video(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """Derive a processor class that neither loads nor needs the video part, which needs torchvision."""

    def get_attributes(cls: type) -> list[str]:
        return [name for name in kind.get_attributes() if name != "video_processor"]

    return type(kind.__name__, (kind,), {"get_attributes": classmethod(get_attributes)})


def load_processor(source: str | Path) -> ProcessorMixin:
    """Load the processor of an image-text model, without its video part.

    Raises:
        ValueError: in one line, if there is none.
    """
    with quiet():
        from transformers import AutoConfig
        from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

        try:
            kind = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(source))]
        except KeyError as error:
            raise ValueError(f"{source} is not an image-text model: {first_line(error)}") from error
        except Exception as error:  # the hub and transformers raise anything here
            raise ValueError(f"cannot load {source} as an image-text model: {first_line(error)}") from error
        try:
            return without_video(kind).from_pretrained(source)
        except Exception as error:
            raise ValueError(f"cannot load the processor of {source}: {first_line(error)}") from error


def render(processor: ProcessorMixin, axis: Axis, style: str = "", wording: Wording = PAPER) -> str:
    """Write a question with the model's chat template, ready for its answer, each image where it belongs.

    Some templates (LLaVA-OneVision's own) move all images to the front; then the images' token is put into
    the text itself, so that "Test image:" stands before the test image.

    Raises:
        ValueError: the model has no chat template, or none that takes two images.
    """
    token = getattr(processor, "image_token", None) or "<image>"
    expected = [
        token if part is IMAGE else part.replace("{style}", style).strip()
        for part in (wording.subject if axis == "subject" else wording.style)
    ]
    try:
        text = processor.apply_chat_template(
            conversation(axis, style, wording=wording), add_generation_prompt=True
        )
        if not _in_order(text, expected, token):
            said = conversation(axis, style, lambda: {"type": "text", "text": token}, wording)
            joined = "".join(part["text"] for part in said[1]["content"])
            said[1]["content"] = [{"type": "text", "text": joined}]
            text = processor.apply_chat_template(said, add_generation_prompt=True)
    except Exception as error:  # jinja raises its own errors, transformers ValueError
        raise ValueError(
            f"cannot write the question with the model's template: {first_line(error)}"
        ) from error
    if not _in_order(text, expected, token):
        raise ValueError(f"the model's chat template does not take two images: {token!r} is not in place")
    return text


def _in_order(text: str, parts: Sequence[str], token: str) -> bool:
    """Tell whether a rendered prompt has the parts of the question one after the other, and two images."""
    end = 0
    for part in parts:
        start = text.find(part, end)
        if start < 0:
            return False
        end = start + len(part)
    return text.count(token) == 2


def local_judge(
    source: str | Path,
    device: str | torch.device | None = None,
    options: JudgeOptions | None = None,
    *,
    progress: bool = False,
    **changes: Any,
) -> Ask:
    """Load an image-text model that judges: a folder or a hub's id, the shoebox's miniature or LLaVA-Critic.

    Any model that `AutoModelForImageTextToText` knows and whose chat template takes two images. Decoding is
    greedy unless there is a temperature; then answers are drawn with torch's generator. On a CPU it computes
    in float32.

    Raises:
        ValueError: in one line: an option is out of range, it cannot be loaded, or it is not such a model.
    """
    o = JudgeOptions.of(options, **changes)
    batch_size, wording = o.batch_size, WORDINGS[o.wording]
    drawn = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if o.temperature:
        drawn = {"do_sample": True, "temperature": o.temperature, "top_p": 1.0, "top_k": 0}
    where = find_device(device)
    processor = load_processor(source)
    with quiet():
        from transformers import AutoModelForImageTextToText

        dtype = torch.float32 if where.type == "cpu" else "auto"
        try:
            model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype)
        except Exception as error:  # the hub, safetensors and transformers raise anything here
            raise ValueError(f"cannot load {source} as an image-text model: {first_line(error)}") from error
    model.to(where).eval()
    processor.tokenizer.padding_side = "left"  # answers begin where the padded prompts end, side by side
    prompts: dict[tuple[str, str], str] = {}

    def prompt(question: Question) -> str:
        key = question.axis, question.style
        if key not in prompts:
            prompts[key] = render(processor, *key, wording)
        return prompts[key]

    @torch.inference_mode()
    def ask(questions: Sequence[Question]) -> list[str]:
        answers: list[str] = []
        starts = tqdm(range(0, len(questions), batch_size), "judge", unit="batch", disable=not progress)
        for start in starts:
            some = questions[start : start + batch_size]
            pictures = [[Image.fromarray(image) for image in shown(q, wording)] for q in some]
            inputs = processor(
                text=[prompt(q) for q in some], images=pictures, padding=True, return_tensors="pt"
            ).to(where)
            if "pixel_values" in inputs:
                inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
            with quiet():
                said = model.generate(**inputs, max_new_tokens=8, **drawn)
            said = said[:, inputs["input_ids"].shape[1] :]
            texts = processor.batch_decode(said, skip_special_tokens=True)
            answers += [meant(text.strip(), wording) for text in texts]
        return answers

    return ask
