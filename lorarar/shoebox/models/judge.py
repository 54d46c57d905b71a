"""The miniature judge: LLaVA-OneVision, which answers the judge's two questions in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SwinConfig,
)

from lorarar.judging import PAPER, Wording, conversation
from lorarar.judging.local import render, without_video
from lorarar.shoebox.models import architectures
from lorarar.shoebox.world import styles, world
from lorarar.shoebox.world.scene import SIZE

SIDE = 4
"""An image is SIDE × SIDE tokens to the language model."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen's chat format; unlike LLaVA-OneVision's template it leaves images where they stand."""


# --- the judge: architecture --------------------------------------------------------------------------
def words(wordings: Sequence[Wording] = (PAPER,)) -> PreTrainedTokenizerFast:
    """Build the tokenizer: a token for each word and mark of the questions, the styles and the answers.

    What later wordings add comes last, so that a judge of the first keeps its ids.
    """
    special = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    known: dict[str, None] = {}
    for wording in wordings:
        texts = ["system user assistant Yes No", *styles.FAMILIES]
        for axis in ("subject", "style"):
            for message in conversation(axis, "any", wording=wording):
                texts += [part.get("text", "") for part in message["content"]]
        known |= dict.fromkeys(sorted({w for text in texts for w in re.findall(r"\w+|[^\w\s]+", text)}))
    model = WordLevel({piece: i for i, piece in enumerate([*special, *known])}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # the same expression
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
        chat_template=TEMPLATE,
        model_max_length=512,
        padding_side="left",
    )


def processor(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionProcessor:
    """Build the processor: text with images to ids and pixels in [-1, 1]."""
    images = LlavaOnevisionImageProcessor(
        size={"height": SIZE, "width": SIZE},
        image_mean=architectures.MEAN,
        image_std=architectures.STD,
        image_grid_pinpoints=[[SIZE, SIZE]],
    )
    return without_video(LlavaOnevisionProcessor)(
        image_processor=images,
        tokenizer=tokenizer,
        num_image_tokens=SIDE * SIDE,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
    )


def llava(tokenizer: PreTrainedTokenizerFast, width: int = 128, layers: int = 4) -> nn.Module:
    """Build LLaVA-OneVision in miniature: a Swin Transformer for eyes, Qwen2 to answer, 3.2 M parameters.

    The original's eyes are a plain ViT (SigLIP). With little time and few images a hierarchical one learns
    more: it sees 4 × 4 pixels first and ends with SIDE² tokens, which also keeps the questions short.
    """
    vision = SwinConfig(
        image_size=SIZE,
        patch_size=4,
        embed_dim=64,
        depths=[2, 2, 2],
        num_heads=[2, 4, 8],
        window_size=4,
        drop_path_rate=0.0,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=512,
        initializer_range=0.06,  # Qwen2's 0.02 is for a wider model: here it would begin almost blind
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[SIZE, SIZE]],
        tie_word_embeddings=True,
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    with torch.no_grad():  # attention begins as likeness, on which to compare two images builds
        for layer in model.model.language_model.layers:
            layer.self_attn.k_proj.load_state_dict(layer.self_attn.q_proj.state_dict())
    # It learns the first word of an answer and nothing of what follows: that word ends the answer.
    ends = [tokenizer.eos_token, "Yes", "No"]
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(ends)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def glance(model: nn.Module, pixels: Tensor) -> Tensor:
    """See images (n, 3, SIZE, SIZE), n ≥ 2, as the language model does: (n, SIDE² + 1, width)."""
    n = len(pixels)
    seen = model.model.get_image_features(
        pixel_values=pixels[:, None],  # each is one patch
        image_sizes=torch.full((n, 2), SIZE, device=pixels.device),
        batch_num_images=[n],
    )
    return torch.stack(list(seen.pooler_output))


class Prompts(NamedTuple):
    """The two questions for every family as tokens, padded on the right, wording after wording.

    ids: (wordings · (1 + families), length), the subject's question first; ends: (…, 2), where the second
    image ends and where the prompt does; swapped: (…,) bool, whether the first image is the one to be judged.
    """

    ids: Tensor
    ends: Tensor
    swapped: Tensor


def prompts(processor: LlavaOnevisionProcessor, wordings: Sequence[Wording] = (PAPER,)) -> Prompts:
    """Tokenise the questions as the processor does, with as many tokens for an image as it takes."""
    asked = [("subject", ""), *(("style", family) for family in styles.FAMILIES)]
    texts = [render(processor, *question, wording) for wording in wordings for question in asked]
    tokens, image = "<image>" * (SIDE * SIDE + 1), processor.image_token_id
    rows = [processor.tokenizer(text.replace("<image>", tokens)).input_ids for text in texts]
    length = max(map(len, rows))
    ids = torch.tensor([row + [processor.tokenizer.pad_token_id] * (length - len(row)) for row in rows])
    ends = [(max(i for i, token in enumerate(row) if token == image), len(row) - 1) for row in rows]
    swapped = torch.tensor([wording.swapped for wording in wordings]).repeat_interleave(len(asked))
    return Prompts(ids, torch.tensor(ends), swapped)


def answer(model: nn.Module, asked: Prompts, which: Tensor, seen: Tensor) -> Tensor:
    """Give the logits of the next word after both images and after the prompt (q, 2, vocabulary).

    which: (q,) rows of the prompts; seen: (q, 2, SIDE² + 1, width), reference and image from `glance`.
    """
    ends = asked.ends[which]
    ids = asked.ids[which, : int(ends.max()) + 1]
    embedded = model.get_input_embeddings()(ids)
    place = (ids == model.config.image_token_id)[..., None]
    seen = torch.where(asked.swapped[which, None, None, None], seen.flip(1), seen)
    embedded = embedded.masked_scatter(place, seen.to(embedded.dtype))
    # Prompts are padded on the right, so nothing that counts attends to the padding.
    hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return model.lm_head(hidden[torch.arange(len(ids), device=ids.device)[:, None], ends])


# --- the judge: questions -----------------------------------------------------------------------------
class Drill(NamedTuple):
    """Questions about a set of drawings, each (q,): prompt row, image indices, the true answer, the kind."""

    prompt: Tensor
    reference: Tensor
    image: Tensor
    yes: Tensor
    hard: Tensor


def drill(truth: Tensor, variety: float = 0.25) -> Drill:
    """Ask about groups of drawings: eight questions per axis and group, half of them to be answered Yes.

    Subject: a photo, and a drawing of this or of the group's other individual. Style: a drawing, and one of
    the other individual in the same or in the family's other style. A share `variety` of the wrong ones come
    from elsewhere: from another group, or, about style, as a photo. Questions about the style of photos are
    not asked. Hard are wrong ones of the same class, or family.

    truth: (6n, 4), see `world.Truth`; uses torch's generator.
    """
    groups = len(truth) // world.GROUP
    base = torch.arange(groups)[:, None] * world.GROUP
    # Within a group: 0, 1 drawings and 2 photo of the first individual, 3, 4 and 5 of the second.
    subject = torch.tensor([(2, 0, 3), (2, 1, 4), (5, 3, 0), (5, 4, 1)])  # reference, right, wrong
    style = torch.tensor([(0, 3, 4), (1, 4, 3), (3, 0, 1), (4, 1, 0)])
    columns: list[list[Tensor]] = []
    for axis, pattern in enumerate((subject, style)):
        reference, right, wrong = (base + pattern[:, k] for k in range(3))  # (groups, 4)
        elsewhere = (wrong + world.GROUP * torch.randint(1, max(2, groups), wrong.shape)) % len(truth)
        if axis == 1:
            photo = base + torch.tensor([5, 5, 2, 2])
            elsewhere = torch.where(torch.rand(wrong.shape) < 0.5, elsewhere, photo)
        wrong = torch.where(torch.rand(wrong.shape) < variety, elsewhere, wrong)
        asked = torch.cat([reference, reference]).flatten()
        shown = torch.cat([right, wrong]).flatten()
        yes = truth[asked, 2 + axis] == truth[shown, 2 + axis]
        hard = ~yes & (truth[asked, axis] == truth[shown, axis])
        row = torch.zeros_like(asked) if axis == 0 else 1 + truth[asked, 1]
        sensible = torch.ones_like(yes) if axis == 0 else truth[asked, 1] != styles.FAMILIES.index("photo")
        columns.append([column[sensible] for column in (row, asked, shown, yes, hard)])
    return Drill(*(torch.cat(both) for both in zip(*columns, strict=True)))
