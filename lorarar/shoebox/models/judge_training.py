"""Training the miniature judge: first its eyes, then eyes and language model together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorarar.judging import WORDINGS, local_judge
from lorarar.judging.wordings import TRAINED
from lorarar.shoebox.models.critic import JUDGEMENT
from lorarar.shoebox.models.critic_training import contrast, roughen, verify
from lorarar.shoebox.models.examination import measure_judge
from lorarar.shoebox.models.judge import (
    Drill,
    Prompts,
    answer,
    drill,
    glance,
    llava,
    processor,
    prompts,
    words,
)
from lorarar.shoebox.models.loop import GROUPS, HELD_OUT, RECIPES, Recipe, card, command, fit, to_unit
from lorarar.shoebox.models.naming import Names
from lorarar.shoebox.world import attributes, styles, subjects, world
from lorarar.shoebox.world.changed import mixed

SIGHT = 0.5
"""Share of the judge's steps that train its eyes alone, on batches twice as large."""
NAMES = 0.2
"""Weight of the many attributes beside what is classified and compared."""


class Sight(nn.Module):
    """Heads by which the eyes learn before there are questions; thrown away afterwards.

    They read the mean of an image's tokens, which attention in the language model's first layer can take too:
    they classify, compare, and name every attribute of the individual and the style.
    """

    def __init__(self, width: int, embedding: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.names = nn.ModuleList(
            Names(width, kinds, sizes, hidden)
            for kinds, sizes in (
                (len(subjects.CLASSES), attributes.SUBJECT),
                (len(styles.FAMILIES), attributes.STYLE),
            )
        )
        self.cls = nn.Linear(width, len(subjects.CLASSES))
        self.family = nn.Linear(width, len(styles.FAMILIES))
        self.subject = nn.Linear(width, embedding)
        self.style = nn.Linear(width, embedding)
        self.judgement = nn.Parameter(torch.tensor(JUDGEMENT))

    def forward(self, seen: Tensor, truth: Tensor, said: Tensor) -> dict[str, Tensor]:
        """Classify, compare and name images (n, tokens, width): the losses.

        truth: (n, 4), see `world.Truth`; said: (n, 24), see `attributes.of_group`.
        """
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
        drawn = family != styles.FAMILIES.index("photo")  # what a photo's style was is not known
        individual, manner = said.split((len(attributes.SUBJECT), len(attributes.STYLE)), 1)
        terms["names"] = NAMES * sum(
            sum(names.losses(names(mean[rows]), kind[rows], values[rows]))
            for names, rows, kind, values in zip(
                self.names, (cls >= 0, drawn), (cls, family), (individual, manner), strict=True
            )
            if rows.any()
        )
        return {"loss": sum(terms.values()), **terms}


def spoken_rightly(
    model: nn.Module, asked: Prompts, spoken: Tensor, several: Drill, seen: Tensor, way: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Ask half of the questions about what was seen: the loss of the answers, and how many are right by axis.

    spoken: ids of No and Yes; seen: of all images, see `glance`; way: in which of the wordings of `asked`.
    """
    some = torch.randperm(len(several.yes))[: max(2, len(several.yes) // 2)]
    several = Drill(*(column[some].to(seen.device) for column in several))
    which = several.prompt + way * (1 + len(styles.FAMILIES))
    pair = torch.stack([several.reference, several.image], 1)
    spoke = answer(model, asked, which, seen[pair]).float()
    # What the answer will be is known once both images have been seen: to ask for it there too makes the
    # comparison, which is learned last, a shorter way.
    wrong = F.cross_entropy(spoke.flatten(0, 1), spoken[several.yes.long()].repeat_interleave(2))
    right = (spoke[:, 1, spoken].argmax(1) == several.yes).float()
    style = several.prompt > 0
    return wrong, {"subject": right[~style].mean(), "style": right[style].mean()}


def train_judge(
    out: Path,
    run: Path,
    recipe: Recipe = RECIPES["judge"],
    seed: int = 0,
    device: str = "cpu",
    groups: int = GROUPS,
    init: Path | None = None,
    changed: float = 0.0,
) -> dict:
    """Train the judge on drawings, first its eyes, then its answers, and measure it as it will be used.

    The eyes learn to classify, to tell individuals and styles apart, and to name their attributes; then the
    whole model learns the first word of the answer, the only one that counts. `init`: a judge's folder whose
    weights to start from; its eyes have learned to see, and all steps are answers; the heads of `Sight`, in
    no file, begin at random. changed: share of the groups in which the other individual and style are the
    first with one change. Writes `out`/judge.
    """
    images, *known = mixed(groups, seed, changed)
    truth, said = (torch.from_numpy(table).long() for table in known)
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
        return sight(look(indices), truth[indices].to(device), said[indices].to(device))

    def speak(indices: Tensor, step: int) -> dict[str, Tensor]:
        seen, true = look(indices), truth[indices]
        wrong, right = spoken_rightly(model, asked, spoken, drill(true), seen)
        eyes = sight(seen, true.to(device), said[indices].to(device))["loss"]
        return {"loss": wrong + 0.1 * eyes, "eyes": eyes, **right}

    first = int(SIGHT * recipe.steps) if init is None else 0
    begin = replace(recipe, steps=first, batch=2 * recipe.batch, warmup=min(recipe.warmup, -(-first // 10)))
    then = replace(recipe, steps=recipe.steps - first)
    shared = {"run": run, "seed": seed, "device": device, "group": world.GROUP, "half": True}
    eyes = nn.ModuleList([model.model.vision_tower, model.model.multi_modal_projector, sight])
    spent = [fit("judge-eyes", eyes, see, len(images), begin, **shared)] if first else []
    spent += [fit("judge", nn.ModuleList([model, sight]), speak, len(images), then, **shared)]
    folder = out / "judge"
    measured = saved(model, both, folder, seed, device)
    facts = {
        "seed": seed,
        "recipe": asdict(recipe),
        "steps": sum(part["steps"] for part in spent),
        "seconds": round(sum(part["seconds"] for part in spent), 1),
        "precision": spent[0]["precision"],
        "parameters": sum(p.numel() for p in model.parameters()),
        **measured,
    }
    ran = command("judge", recipe, seed, init) + (f" --changed {changed:g}" if changed else "")
    card(folder, "The judge: LLaVA-OneVision in miniature", ran, facts)
    return facts


def saved(model: nn.Module, both: nn.Module, folder: Path, seed: int, device: str) -> dict:
    """Save a judge in half precision with its processor, and measure it on drawings that it never saw."""
    model.to("cpu").half().save_pretrained(folder)
    both.save_pretrained(folder)
    judge = local_judge(folder, device, batch_size=64)
    return measure_judge(judge, seed, folder / "mistakes.webp", HELD_OUT)


def begin_from(model: nn.Module, old: nn.Module) -> None:
    """Give a judge the weights of an old one, whose words are the first of its own; new words stay new."""
    weights = old.state_dict()
    for name, weight in model.state_dict().items():
        if len(weights[name]) < len(weight):
            weights[name] = torch.cat([weights[name], weight[len(weights[name]) :]])
    model.load_state_dict(weights)


def train_words(
    out: Path,
    run: Path,
    recipe: Recipe = RECIPES["words"],
    seed: int = 0,
    device: str = "cpu",
    groups: int = GROUPS,
    *,
    init: Path,
    wordings: Sequence[str] = TRAINED,
) -> dict:
    """Teach a judge to answer in other words: each step's questions are in one of the wordings, by lot.

    Its eyes stay as they are, so that two judges differ in the words that they know and in nothing else that
    they see. init: the judge's folder; wordings: of `lorarar.judging.WORDINGS`, the first one that which it
    knows. Writes `out`/judge.
    """
    images, _, truths = world.dataset(groups, seed)
    truth = torch.from_numpy(truths).long()
    torch.manual_seed(seed)
    ways = [WORDINGS[name] for name in wordings]
    tokenizer = words(ways)
    both = processor(tokenizer)
    model = llava(tokenizer)
    begin_from(model, type(model).from_pretrained(init, dtype=torch.float32))
    model.to(device)
    if device == "cpu":
        model.set_attn_implementation("eager")
    asked = Prompts(*(part.to(device) for part in prompts(both, ways)))
    spoken = torch.tensor([tokenizer.convert_tokens_to_ids(word) for word in ("No", "Yes")], device=device)

    def speak(indices: Tensor, step: int) -> dict[str, Tensor]:
        with torch.no_grad():
            seen = glance(model, roughen(to_unit(images[indices.numpy()]).to(device)))
        way = int(torch.randint(len(ways), ()))
        wrong, right = spoken_rightly(model, asked, spoken, drill(truth[indices]), seen, way)
        return {"loss": wrong, **right}

    # The head of the language model is its embedding: the words that are read are those that are spoken.
    learning = nn.ModuleList([model.model.language_model])
    shared = {"run": run, "seed": seed, "device": device, "group": world.GROUP, "half": True}
    spent = fit("judge-words", learning, speak, len(images), recipe, **shared)
    folder = out / "judge"
    measured = saved(model, both, folder, seed, device)
    facts = {"seed": seed, "recipe": asdict(recipe), "wordings": list(wordings), **spent, **measured}
    ran = command("judge", recipe, seed, init) + f" --groups {groups} --wordings several"
    card(folder, "The judge, in several wordings", ran, facts)
    return facts
