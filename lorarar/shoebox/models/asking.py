"""The miniature asked many questions about the same images: each is looked at once, in any words.

`lorarar.judging.local_judge` sees both images anew for every question, as it must with models that it does
not know. A trial of wordings asks about each image a hundred times.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lorarar.judging import WORDINGS, Ask, Question
from lorarar.judging.local import load_processor
from lorarar.judging.mars2 import meant, shown
from lorarar.pipelines import find_device, quiet
from lorarar.shoebox.models.judge import glance, prompts
from lorarar.shoebox.models.loop import to_unit
from lorarar.shoebox.world import styles


def is_miniature(folder: str | Path) -> bool:
    """Tell whether a judge's folder holds a miniature: no other LLaVA-OneVision has a Swin for eyes."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text())
        return config["model_type"] == "llava_onevision" and config["vision_config"]["model_type"] == "swin"
    except (OSError, ValueError, KeyError):
        return False


class Miniature:
    """A miniature judge that keeps what it has seen.

    Raises:
        ValueError: as `load_processor` does.
    """

    def __init__(self, folder: str | Path, device: str | None = None) -> None:
        self.device = find_device(device)
        self.processor = load_processor(folder)
        with quiet():
            from transformers import AutoModelForImageTextToText

            self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        self.model.to(self.device).eval()
        self.seen: dict[bytes, Tensor] = {}

    @torch.inference_mode()
    def look(self, images: Sequence[np.ndarray], batch: int = 64) -> Tensor:
        """Return what the eyes make of images (n, 64, 64, 3) uint8: (n, tokens, width)."""
        keys = [image.tobytes() for image in images]
        new = list(
            {key: image for key, image in zip(keys, images, strict=True) if key not in self.seen}.items()
        )
        for start in range(0, len(new), batch):
            some = new[start : start + batch]
            pixels = to_unit(np.stack([image for _, image in some])).to(self.device)
            found = glance(self.model, pixels if len(some) > 1 else pixels.repeat(2, 1, 1, 1))
            self.seen.update((key, found[i].clone()) for i, (key, _) in enumerate(some))
        return torch.stack([self.seen[key] for key in keys])

    def asks(self, wording: str = "paper", temperature: float = 0.0, seed: int = 0, batch: int = 64) -> Ask:
        """Return the judge that asks in these words: the likeliest first word, or one drawn at a temperature.

        wording: of `lorarar.judging.WORDINGS`; seed: of what is drawn.
        """
        way, tokenizer = WORDINGS[wording], self.processor.tokenizer
        asked = prompts(self.processor, [way])
        source = torch.Generator().manual_seed(seed)

        def first_words(row: int, first: Tensor, second: Tensor) -> Tensor:
            """Return the logits of the first word about many second images after one and the same first."""
            ids = asked.ids[row, : int(asked.ends[row, 1]) + 1].to(self.device)
            split = int(asked.ends[row, 0]) + 1 - first.shape[1]  # where the second image begins
            words = self.model.get_input_embeddings()(ids)[None]
            place = (ids == self.model.config.image_token_id)[None, :, None]
            before = words[:, :split].masked_scatter(place[:, :split], first.to(words.dtype))
            after = words[:, split:].expand(len(second), -1, -1)
            after = after.masked_scatter(place[:, split:], second.to(words.dtype))
            language = self.model.model.language_model
            known = language(inputs_embeds=before, use_cache=True).past_key_values
            known.batch_repeat_interleave(len(second))
            hidden = language(inputs_embeds=after, past_key_values=known, use_cache=True).last_hidden_state
            return self.model.lm_head(hidden[:, -1]).float().cpu()

        @torch.inference_mode()
        def ask(questions: Sequence[Question]) -> list[str]:
            seen = self.look([image for q in questions for image in shown(q, way)]).unflatten(0, (-1, 2))
            # What comes before the second image is the same for all questions with one reference.
            alike: dict[tuple[int, bytes], list[int]] = {}
            for i, q in enumerate(questions):
                row = 0 if q.axis == "subject" else 1 + styles.FAMILIES.index(q.style)
                alike.setdefault((row, shown(q, way)[0].tobytes()), []).append(i)
            logits = torch.empty(len(questions), self.model.config.text_config.vocab_size)
            for (row, _), all_of in alike.items():
                for start in range(0, len(all_of), batch):
                    some = all_of[start : start + batch]
                    logits[some] = first_words(row, seen[some[:1], 0], seen[some, 1])
            if temperature:
                chosen = torch.multinomial((logits / temperature).softmax(-1), 1, generator=source)[:, 0]
            else:
                chosen = logits.argmax(-1)
            texts = tokenizer.batch_decode(chosen[:, None], skip_special_tokens=True)
            return [meant(text.strip(), way) for text in texts]

        return ask
