"""The miniatures that look: LLaVA-OneVision, which answers the judge's two questions, and DINO.

Both are trained on drawings only. The judge meets hard cases from the start: another individual of the same
class, another style of the same family.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
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
    ViTConfig,
    ViTModel,
)

from lorarar import judge
from lorarar.shoebox import miniatures, styles, subjects, train, world
from lorarar.shoebox.critic import JUDGEMENT, Critic, balanced, contrast, pairs, roughen, verify
from lorarar.shoebox.scene import SIZE
from lorarar.shoebox.train import RECIPES, Recipe, to_unit

SIGHT = 0.5
"""Share of the judge's steps that train its eyes alone, on batches twice as large."""

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


def words() -> PreTrainedTokenizerFast:
    """Build the tokenizer: a token for each word and mark of the questions, the styles and the answers."""
    special = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    texts = ["system user assistant Yes No", *styles.FAMILIES]
    for axis in ("subject", "style"):
        for message in judge.conversation(axis, "any"):
            texts += [part.get("text", "") for part in message["content"]]
    known = sorted({piece for text in texts for piece in re.findall(r"\w+|[^\w\s]+", text)})
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
        image_mean=miniatures.MEAN,
        image_std=miniatures.STD,
        image_grid_pinpoints=[[SIZE, SIZE]],
    )
    return judge.without_video(LlavaOnevisionProcessor)(
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
    """The two questions for every family as tokens, padded on the right.

    ids: (1 + families, length), the subject's question first; ends: (1 + families, 2), where the test image
    ends and where the prompt does.
    """

    ids: Tensor
    ends: Tensor


def prompts(processor: LlavaOnevisionProcessor) -> Prompts:
    """Tokenise the questions as the processor does, with as many tokens for an image as it takes."""
    texts = [judge.render(processor, "subject")]
    texts += [judge.render(processor, "style", family) for family in styles.FAMILIES]
    tokens, image = "<image>" * (SIDE * SIDE + 1), processor.image_token_id
    rows = [processor.tokenizer(text.replace("<image>", tokens)).input_ids for text in texts]
    length = max(map(len, rows))
    ids = torch.tensor([row + [processor.tokenizer.pad_token_id] * (length - len(row)) for row in rows])
    ends = [(max(i for i, token in enumerate(row) if token == image), len(row) - 1) for row in rows]
    return Prompts(ids, torch.tensor(ends))


def answer(model: nn.Module, asked: Prompts, which: Tensor, seen: Tensor) -> Tensor:
    """Give the logits of the next word after the test image and after the prompt (q, 2, vocabulary).

    which: (q,) rows of the prompts; seen: (q, 2, SIDE² + 1, width), reference and image from `glance`.
    """
    ids = asked.ids[which]
    embedded = model.get_input_embeddings()(ids)
    place = (ids == model.config.image_token_id)[..., None]
    embedded = embedded.masked_scatter(place, seen.to(embedded.dtype))
    # Prompts are padded on the right, so nothing that counts attends to the padding.
    hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return model.lm_head(hidden[torch.arange(len(ids), device=ids.device)[:, None], asked.ends[which]])


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


class Sight(nn.Module):
    """Heads by which the eyes learn before there are questions; thrown away afterwards.

    They read the mean of an image's tokens, which attention in the language model's first layer can take too.
    """

    def __init__(self, width: int, embedding: int = 64) -> None:
        super().__init__()
        self.cls = nn.Linear(width, len(world.CLASSES))
        self.family = nn.Linear(width, len(world.FAMILIES))
        self.subject = nn.Linear(width, embedding)
        self.style = nn.Linear(width, embedding)
        self.judgement = nn.Parameter(torch.tensor(JUDGEMENT))

    def forward(self, seen: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Classify and compare images (n, tokens, width) with their truths (n, 4): the losses."""
        mean = seen[:, :-1].mean(1).float()
        cls, family, identity, instance = truth.unbind(1)
        subject, style = (F.normalize(head(mean).float(), dim=-1) for head in (self.subject, self.style))
        terms = {
            "cls": F.cross_entropy(self.cls(mean), cls, label_smoothing=0.02),
            "family": F.cross_entropy(self.family(mean), family, label_smoothing=0.02),
            "subject": contrast(subject, identity),
            "style": contrast(style, instance),
            "same subject": verify(subject, identity, cls, self.judgement[0]),
            "same style": verify(style, instance, family, self.judgement[1]),
        }
        return {"loss": sum(terms.values()), **terms}


def train_judge(
    out: Path,
    run: Path,
    recipe: Recipe = RECIPES["judge"],
    seed: int = 0,
    device: str = "cpu",
    groups: int = train.GROUPS,
    init: Path | None = None,
) -> dict:
    """Train the judge on drawings, first its eyes, then its answers, and measure it as it will be used.

    The eyes learn to classify, and to tell individuals and styles apart by contrast; then the whole model
    learns the first word of the answer, the only one that counts. `init`: a judge's folder whose weights to
    start from; its eyes have learned to see, and all steps are answers. Writes `out`/judge.
    """
    images, _, truths = world.dataset(groups, seed)
    truth = torch.from_numpy(truths).long()
    torch.manual_seed(seed)
    tokenizer = words()
    both = processor(tokenizer)
    model = llava(tokenizer)
    if init is not None:
        model.load_state_dict(type(model).from_pretrained(init, dtype=torch.float32).state_dict())
    model.to(device)
    if device == "cpu":
        model.set_attn_implementation("eager")  # trains faster than SDPA there
    sight = Sight(model.config.text_config.hidden_size).to(device)
    asked = Prompts(*(part.to(device) for part in prompts(both)))
    spoken = torch.tensor([tokenizer.convert_tokens_to_ids(word) for word in ("No", "Yes")], device=device)

    def look(indices: Tensor) -> Tensor:
        return glance(model, roughen(to_unit(images[indices.numpy()]).to(device)))

    def see(indices: Tensor, step: int) -> dict[str, Tensor]:
        return sight(look(indices), truth[indices].to(device))

    def speak(indices: Tensor, step: int) -> dict[str, Tensor]:
        seen, true = look(indices), truth[indices]
        several = drill(true)
        some = torch.randperm(len(several.yes))[: max(2, len(several.yes) // 2)]
        several = Drill(*(column[some] for column in several))
        pair = torch.stack([several.reference, several.image], 1).to(device)
        said = answer(model, asked, several.prompt.to(device), seen[pair]).float()
        yes = several.yes.to(device)
        # What the answer will be is known once the test image has been seen: to ask for it there too makes
        # the comparison, which is learned last, a shorter way.
        wrong = F.cross_entropy(said.flatten(0, 1), spoken[yes.long()].repeat_interleave(2))
        right = (said[:, 1, spoken].argmax(1) == yes).float()
        style = several.prompt.to(device) > 0
        eyes = sight(seen, true.to(device))["loss"]
        return {
            "loss": wrong + 0.1 * eyes,
            "eyes": eyes,
            "subject": right[~style].mean(),
            "style": right[style].mean(),
        }

    first = int(SIGHT * recipe.steps) if init is None else 0
    begin = replace(recipe, steps=first, batch=2 * recipe.batch, warmup=min(recipe.warmup, -(-first // 10)))
    then = replace(recipe, steps=recipe.steps - first)
    shared = {"run": run, "seed": seed, "device": device, "group": world.GROUP, "half": True}
    eyes = nn.ModuleList([model.model.vision_tower, model.model.multi_modal_projector, sight])
    spent = [train.fit("judge-eyes", eyes, see, len(images), begin, **shared)] if first else []
    spent += [train.fit("judge", nn.ModuleList([model, sight]), speak, len(images), then, **shared)]
    folder = out / "judge"
    model.to("cpu").half().save_pretrained(folder)
    both.save_pretrained(folder)
    facts = {
        "seed": seed,
        "recipe": asdict(recipe),
        "steps": sum(part["steps"] for part in spent),
        "seconds": round(sum(part["seconds"] for part in spent), 1),
        "precision": spent[0]["precision"],
        "parameters": sum(p.numel() for p in model.parameters()),
        **measure_judge(
            judge.local_judge(folder, device, batch_size=64), seed, folder / "mistakes.png", train.HELD_OUT
        ),
    }
    said = train.command("judge", recipe, seed, init)
    train.card(folder, "The judge: LLaVA-OneVision in miniature", said, facts)
    return facts


# --- the judge judged ---------------------------------------------------------------------------------


def confusion(yes: np.ndarray, said: np.ndarray) -> dict[str, int]:
    """Count what should be Yes and No, yes (n,) bool, against what was said, (n,) bool."""
    yes, said = np.asarray(yes, bool), np.asarray(said, bool)
    return {
        "yes, said yes": int((yes & said).sum()),
        "yes, said no": int((yes & ~said).sum()),
        "no, said yes": int((~yes & said).sum()),
        "no, said no": int((~yes & ~said).sum()),
    }


def balanced_accuracy(yes: np.ndarray, said: np.ndarray) -> float:
    """Mean of the shares of Yes and of No that were said rightly; NaN where there is none of one."""
    yes, said = np.asarray(yes, bool), np.asarray(said, bool)
    if yes.all() or not yes.any():
        return float("nan")
    return float((said[yes].mean() + (~said[~yes]).mean()) / 2)


def report(yes: np.ndarray, said: np.ndarray, hard: np.ndarray) -> dict:
    """Sum up answers (n,): on all questions, and where what is wrong is hard to tell (hard, (n,) bool)."""
    kept = yes | hard
    return {
        "balanced accuracy": round(balanced_accuracy(yes, said), 4),
        "balanced accuracy, hard": round(balanced_accuracy(yes[kept], said[kept]), 4),
        "confusion": confusion(yes, said),
    }


def measure_groups(ask: judge.Ask, groups: int, seed: int) -> tuple[dict, np.ndarray]:
    """Ask single questions about drawings of random individuals in random styles.

    Returns the report, with balanced accuracy by family of the image (subject) or the reference (style), and
    the wrongly accepted pairs, hard ones first: (n, 2, SIZE, SIZE, 3) uint8.
    """
    images, _, truths = world.dataset(groups, seed)
    truth = torch.from_numpy(truths).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        asked = Drill(*(column.numpy() for column in drill(truth)))
    axes = np.where(asked.prompt == 0, "subject", "style")
    families = [styles.FAMILIES[row - 1] if row else "" for row in asked.prompt]
    questions = [
        judge.Question(str(axis), images[i], images[j], family)
        for axis, i, j, family in zip(axes, asked.reference, asked.image, families, strict=True)
    ]
    said = np.array([judge.said_yes(text) for text in ask(questions)])
    facts = {}
    for axis in ("subject", "style"):
        here = axes == axis
        facts[axis] = report(asked.yes[here], said[here], asked.hard[here])
        family = truths[asked.image if axis == "subject" else asked.reference, 1]
        facts[axis]["hard, by family"] = {}
        for k, name in enumerate(styles.FAMILIES):
            these = here & (asked.yes | asked.hard) & (family == k)
            if asked.yes[these].any() and asked.hard[these].any():
                right = balanced_accuracy(asked.yes[these], said[these])
                facts[axis]["hard, by family"][name] = round(right, 3)
    mistaken = np.flatnonzero(said & ~asked.yes)
    mistaken = mistaken[np.argsort(~asked.hard[mistaken], kind="stable")]
    return facts, np.stack([images[asked.reference[mistaken]], images[asked.image[mistaken]]], 1)


class Case(NamedTuple):
    """A named subject or style with references, and images of which some show it.

    references: (r, SIZE, SIZE, 3) uint8; images: (n, SIZE, SIZE, 3) uint8; yes: (n,) bool; words: of a style.
    """

    axis: judge.Axis
    name: str
    references: np.ndarray
    images: np.ndarray
    yes: np.ndarray
    words: str


Verdict = Callable[[Case], np.ndarray]
"""Says which of a case's images show it, (n,) bool."""


def cases(each: int = 6, seed: int = 0) -> list[Case]:
    """Draw the hard cases of every named subject and style, none of which any training drawing shows.

    Per subject: `each` drawings of it, and of others of its class, named ones first, in the same named
    styles. Per style: drawings of random individuals in it, and in others of its family. References are as in
    the experiment: five photos of a subject, four drawings in a style.
    """
    found = []
    for number, (name, identity) in enumerate(subjects.SUBJECTS.items()):
        rng = np.random.default_rng([seed, 5, number])
        chosen = rng.permutation(list(styles.STYLES))[:each]
        named = [o for n, o in subjects.SUBJECTS.items() if n != name and o.cls == identity.cls]
        others = [*named, *(subjects.random_identity(rng, identity.cls) for _ in range(each))][:each]
        right = [world.draw(identity, styles.STYLES[style], rng) for style in chosen]
        wrong = [world.draw(o, styles.STYLES[s], rng) for o, s in zip(others, chosen, strict=True)]
        found.append(("subject", name, world.subject_images(name, 5, seed + 1), [*right, *wrong], ""))
    for number, (name, style) in enumerate(styles.STYLES.items()):
        rng = np.random.default_rng([seed, 6, number])
        named = [s for n, s in styles.STYLES.items() if n != name and s.family == style.family]
        others = [*named, *(styles.random_style(rng, style.family) for _ in range(each))][:each]
        shown = [subjects.random_identity(rng, str(cls)) for cls in rng.choice(world.CLASSES, 2 * each)]
        right = [world.draw(who, style, rng) for who in shown[:each]]
        wrong = [world.draw(who, o, rng) for who, o in zip(shown[each:], others, strict=True)]
        references = world.style_images(name, 4, seed + 1)[0]
        found.append(("style", name, references, [*right, *wrong], style.family))
    yes = np.arange(2 * each) < each
    return [Case(axis, name, ref, np.stack(drawn), yes, said) for axis, name, ref, drawn, said in found]


def measure_named(verdict: Verdict, drawn: Sequence[Case]) -> dict:
    """Judge cases as the experiment does, references voting: a report per axis, and per named thing.

    verdict(case) gives (n,) bool.
    """
    said = [verdict(case) for case in drawn]
    facts = {}
    for axis in ("subject", "style"):
        here = [(case, answers) for case, answers in zip(drawn, said, strict=True) if case.axis == axis]
        if not here:
            continue
        yes, all_said = (np.concatenate(parts) for parts in zip(*((c.yes, a) for c, a in here), strict=True))
        facts[axis] = {
            "balanced accuracy": round(balanced_accuracy(yes, all_said), 4),
            "confusion": confusion(yes, all_said),
            "by name": {case.name: round(balanced_accuracy(case.yes, a), 3) for case, a in here},
        }
    return facts


def by_judge(ask: judge.Ask) -> Verdict:
    """Give the judge's verdicts on cases."""
    return lambda case: judge.majority(judge.votes(ask, case.axis, case.references, case.images, case.words))


def by_critic(critic: Critic) -> Verdict:
    """Give the critic's verdicts on the same cases."""
    return lambda case: critic.same(case.axis, case.references, case.images)


def measure_judge(
    ask: judge.Ask, seed: int = 0, sheet: Path | None = None, groups: int = train.HELD_OUT
) -> dict:
    """Measure a judge on drawings it never saw; `sheet`: where to show what it wrongly accepted, by pairs."""
    single, mistaken = measure_groups(ask, groups, seed + 3)
    if sheet is not None and len(mistaken):
        tiles = mistaken[:40].reshape(-1, SIZE, SIZE, 3)
        Image.fromarray(world.sheet(tiles, 10)).save(sheet)
    return {
        "held-out drawings": single,
        "named subjects and styles": measure_named(by_judge(ask), cases(seed=seed)),
    }


def agreement(ask: judge.Ask, critic: Critic, images: np.ndarray, case: Case) -> dict:
    """Compare judge and critic on images of unknown truth, such as generated ones, by a case's references.

    images: (n, SIZE, SIZE, 3) uint8. Returns the share they agree on, Cohen's κ (chance taken off), and the
    share each accepts.
    """
    case = case._replace(images=images)
    one, two = by_judge(ask)(case), by_critic(critic)(case)
    agreed, p, q = float((one == two).mean()), float(one.mean()), float(two.mean())
    return {"agree": agreed, "kappa": kappa(one, two), "judge accepts": p, "critic accepts": q}


def kappa(one: np.ndarray, two: np.ndarray) -> float:
    """Give Cohen's κ of two judges' verdicts, bool arrays of one shape: agreement, with chance taken off.

    1 is full agreement, 0 what two judges who do not look would reach with as many Yes (Cohen 1960).
    """
    one, two = np.asarray(one, bool), np.asarray(two, bool)
    agreed, p, q = float((one == two).mean()), float(one.mean()), float(two.mean())
    chance = p * q + (1 - p) * (1 - q)
    return (agreed - chance) / (1 - chance) if chance < 1 else 1.0


# --- DINO ---------------------------------------------------------------------------------------------


def vit(width: int = 128, layers: int = 4) -> ViTModel:
    """Build DINO's network in miniature: a ViT on 8 × 8 patches, 0.8 M parameters."""
    config = ViTConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        image_size=SIZE,
        patch_size=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTModel(config, add_pooling_layer=False)


class Projection(nn.Module):
    """DINO's head: a bottleneck on the unit sphere, then as many prototypes as there are outputs."""

    def __init__(self, width: int, outputs: int = 1024, hidden: int = 512, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(F.normalize(torch.randn(outputs, bottleneck), dim=-1))

    def forward(self, features: Tensor) -> Tensor:
        """Compare features (n, width) with the prototypes: cosines (n, outputs)."""
        unit = F.normalize(self.mlp(features).float(), dim=-1)
        with torch.autocast(unit.device.type, enabled=False):  # to divide by 0.04 takes full precision
            return unit @ F.normalize(self.prototypes.float(), dim=-1).T


def crops(images: Tensor, side: int, smallest: float, largest: float) -> Tensor:
    """Cut a random square out of each image, mirrored half of the time, softened and its colours changed.

    images: (n, 3, SIZE, SIZE) in [-1, 1]; smallest, largest: of the square, as shares of the area.
    Returns (n, 3, side, side).
    """
    n = len(images)
    half = (smallest + (largest - smallest) * torch.rand(n, device=images.device)).sqrt()
    free = 1 - half
    x, y = ((2 * torch.rand(n, device=images.device) - 1) * free for _ in range(2))
    mirror = torch.where(torch.rand(n, device=images.device) < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(x)
    moves = torch.stack([torch.stack([half * mirror, zero, x], 1), torch.stack([zero, half, y], 1)], 1)
    grid = F.affine_grid(moves, [n, 3, side, side], align_corners=False)
    cut = F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
    return roughen(recolour(cut))


def recolour(images: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of four images in five, and make one in five grey.

    The strengths are DINO's (Caron et al. 2021, their code's ColorJitter(0.4, 0.4, 0.2, 0.1)): a drawing's
    palette is the easiest thing that two crops share. images: (n, 3, h, w) in [-1, 1].
    """
    n = len(images)
    changed = torch.rand(n, 1, 1, device=images.device) < 0.8
    light, contrast, saturation, turn = (
        strength * changed * (2 * torch.rand(n, 1, 1, device=images.device) - 1)
        for strength in (0.4, 0.4, 0.2, 0.1)
    )
    # Hue turns colours about the grey axis (Rodrigues' formula); saturation scales what is not grey.
    grey = torch.full((3, 3), 1 / 3, device=images.device)
    same = torch.eye(3, device=images.device)
    a = 1 / 3**0.5
    cross = torch.tensor([[0, -a, a], [a, 0, -a], [-a, a, 0]], device=images.device)
    angle = 2 * torch.pi * turn
    colour = grey + (1 + saturation) * (angle.cos() * (same - grey) + angle.sin() * cross)
    colour = torch.where(torch.rand(n, 1, 1, device=images.device) < 0.2, grey, colour)
    unit = (torch.einsum("nij,njhw->nihw", colour, images) + 1) / 2 * (1 + light)[..., None]
    mean = unit.mean((1, 2, 3), keepdim=True)
    return (mean + (1 + contrast)[..., None] * (unit - mean)).clamp(0, 1) * 2 - 1


class Dino(nn.Module):
    """Student, teacher and centre (Caron et al. 2021, algorithm 1).

    The teacher follows the student and is never trained. It still counts as trainable: `train.fit` saves and
    restores what does, and leaves alone what has no gradient.
    """

    def __init__(self, outputs: int = 1024) -> None:
        super().__init__()
        networks = [nn.ModuleList([vit(), Projection(128, outputs)]) for _ in range(2)]
        self.student, self.teacher = networks
        self.teacher.load_state_dict(self.student.state_dict())
        self.centre = nn.Parameter(torch.zeros(outputs))

    @staticmethod
    def project(network: nn.ModuleList, images: Tensor) -> Tensor:
        """Give a network's cosines (n, outputs) for images of any size that is a multiple of the patches'."""
        eyes, head = network
        whole = images.shape[-1] == SIZE
        return head(eyes(images, interpolate_pos_encoding=not whole).last_hidden_state[:, 0])

    def forward(self, images: Tensor, share: float) -> dict[str, Tensor]:
        """Advance teacher and centre and return the student's losses; share: of the training that is done.

        Two large crops and four small ones of each image; the teacher sees the large ones.
        """
        with torch.no_grad():
            momentum = 1 - (1 - 0.99) * (1 + np.cos(np.pi * share)) / 2  # 0.99 rising to 1
            for slow, quick in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                slow.lerp_(quick.to(slow.dtype), 1 - momentum)
            large = [crops(images, SIZE, 0.4, 1.0) for _ in range(2)]
            small = [crops(images, SIZE // 2, 0.15, 0.4) for _ in range(4)]
            seen = self.project(self.teacher, torch.cat(large))
            target = ((seen - self.centre) / 0.04).softmax(-1).chunk(2)
            self.centre.lerp_(seen.mean(0), 0.1)
        said = [*self.project(self.student, torch.cat(large)).chunk(2)]
        said += self.project(self.student, torch.cat(small)).chunk(4)
        terms = [
            -(goal * (guess / 0.1).log_softmax(-1)).sum(-1).mean()
            for i, goal in enumerate(target)
            for j, guess in enumerate(said)
            if i != j  # not the very crop the teacher saw
        ]
        both = torch.cat(target)
        mean = both.mean(0)
        return {
            "loss": sum(terms) / len(terms),
            # Collapsed if a target is flat (its entropy is log of the outputs) or all are alike (this is 0).
            "spread": -(mean * (mean + 1e-9).log()).sum() + (both * (both + 1e-9).log()).sum(-1).mean(),
        }


def train_dino(
    out: Path,
    run: Path,
    recipe: Recipe = RECIPES["dino"],
    seed: int = 0,
    device: str = "cpu",
    groups: int = train.GROUPS,
) -> dict:
    """Train a ViT on drawings without any label, by DINO's recipe, and measure what it tells apart.

    The teacher is kept, as in the paper. Writes `out`/dino.
    """
    images, _, _ = world.dataset(groups, seed)
    torch.manual_seed(seed)
    model = Dino().to(device)

    def loss(indices: Tensor, step: int) -> dict[str, Tensor]:
        return model(to_unit(images[np.sort(indices.numpy())]).to(device), step / recipe.steps)

    spent = train.fit("dino", model, loss, len(images), recipe, run=run, seed=seed, device=device)
    eyes = model.teacher[0].to("cpu").eval()
    folder = out / "dino"
    facts = {
        "seed": seed,
        "recipe": asdict(recipe),
        **spent,
        "held-out drawings": measure_dino(eyes, seed, train.HELD_OUT),
    }
    eyes.half().save_pretrained(folder)
    miniatures.image_processor().save_pretrained(folder)
    train.card(folder, "DINO in miniature", train.command("dino", recipe, seed), facts)
    return facts


@torch.no_grad()
def measure_dino(eyes: ViTModel, seed: int, groups: int = train.HELD_OUT) -> dict:
    """Measure a self-supervised ViT on held-out drawings by the cosine of its class tokens.

    Nearest neighbour's class and family; and the best balanced accuracy that a threshold reaches on hard
    pairs, as for the critic, chosen on the same pairs: what the metric could tell, not what it does.
    """
    images, _, truths = world.dataset(groups, seed + 3)
    parts = [eyes(to_unit(images[i : i + 200])).last_hidden_state[:, 0] for i in range(0, len(images), 200)]
    seen = F.normalize(torch.cat(parts), dim=-1)
    truth = torch.from_numpy(truths).long()
    cosine = seen @ seen.T
    group = torch.arange(len(seen)) // world.GROUP
    nearest = cosine.masked_fill(group[:, None] == group[None], -1).argmax(1)
    facts = {
        f"nearest neighbour's {name}": round(float((truth[nearest, k] == truth[:, k]).float().mean()), 4)
        for k, name in enumerate(("class", "family"))
    }
    for axis, label, alike in (("subject", 2, 0), ("style", 3, 1)):
        found = pairs(seen, truth[:, label], truth[:, alike])
        best = max(
            balanced(*found, float(t)) for t in torch.cat(found).quantile(torch.linspace(0.02, 0.98, 97))
        )
        facts[f"{axis} balanced accuracy, hard pairs, best threshold"] = round(best, 4)
    return facts
