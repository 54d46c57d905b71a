"""Appendix on the judges: families, the hardest rivals, the blur of the VAE, metrics on generated images."""

from __future__ import annotations

import json
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit import board as boards
from lorarar.bookkit import by_eye, figures, other_words, records
from lorarar.bookkit.claims import Claim
from lorarar.bookkit.facts import Facts
from lorarar.bookkit.style import GREY, HUES, SUBJECT, framed, name_of
from lorarar.judging import image_similarity, load_encoder, text_similarity
from lorarar.pipelines import load_pipeline, quiet
from lorarar.scales import find_scale, local
from lorarar.shoebox import zoo
from lorarar.study import orders
from lorarar.study.metrics import encoders
from lorarar.study.verdicts import find_judge

with quiet():  # transformers tells of processors that nothing here uses
    from lorarar.shoebox.models.examination import balanced_accuracy, cases

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lorarar.bookkit.board import Board

AXES = ("subject", "style")
METRICS = ("CLIP-I", "DINO", "CLIP-T")
ENCODER = {"subject": "DINO", "style": "CLIP-I"}  # the metric that the papers use for an axis
WRONGLY = "#d52d2d"


def recorded(scale: str) -> Facts:
    """Return the numbers of the judge's card, of its recorded examination, and of the labels by eye."""
    card, exam = judge_card(scale), records.recorded(f"judges{records.suffix(scale)}")
    families = card["subject"]["hard, by family"]
    wrong = {a: exam["reports"][exam["chosen"]][a]["confusion"]["no, said yes"] for a in AXES}
    own = Facts(
        single_subject=card["subject"]["balanced accuracy, hard"],
        single_style=card["style"]["balanced accuracy, hard"],
        family_glowing=families["glowing"],
        family_least=min(families.values()),
        family_most=max(families.values()),
        fooled_subject=wrong["subject"],
        fooled_style=wrong["style"],
    )
    return Facts(own, by_eye.recorded(scale), other_words.recorded(scale))


def judge_card(scale: str) -> dict:
    """Return what the miniature's card says of single questions about drawings that it never saw."""
    path = local(find_scale(scale).judge) / "card.json"
    return json.loads(path.read_text())["held-out drawings"]


def asked_again(names: tuple[str, ...], scale: str) -> Facts:
    """Ask both judges again about the drawings of some names, as they are and through the VAE.

    Returns:
        For each judge the share of verdicts that are the recorded ones ("same"), and its balanced accuracy on
        the drawings ("clear") and on what the VAE leaves of them ("soft").
    """
    exam = records.recorded(f"judges{records.suffix(scale)}")
    vae = load_pipeline(scale).vae
    clear = cases(exam["each"], exam["seed"], names)
    soft = [case._replace(images=orders.through_vae(vae, case.images)) for case in clear]
    facts = Facts()
    for judge in ("mars2", "critic"):
        shows = find_judge(judge, scale).shows
        said = [[shows(case.name, case.images) for case in drawn] for drawn in (clear, soft)]
        known = [np.array(list(exam["verdicts"][judge][case.name])) == "1" for case in clear]
        yes = np.concatenate([case.yes for case in clear])
        facts |= {
            f"same_{judge}": np.mean(np.concatenate(said[0]) == np.concatenate(known)),
            f"clear_{judge}": balanced_accuracy(yes, np.concatenate(said[0])),
            f"soft_{judge}": balanced_accuracy(yes, np.concatenate(said[1])),
        }
    return facts


def live(follows: np.ndarray) -> Facts:
    """Return how often each metric follows the judge about both axes; follows as in `followed`."""
    return Facts({f"follows_{m.replace('-', '_')}": follows[i, 2] for i, m in enumerate(METRICS)})


def statements(f: Facts) -> dict[str, bool]:
    """Return each finding of the prose with whether it holds."""
    own = {
        "Glowing pictures are the hardest": f.family_glowing <= f.family_least,
        "The verdicts are those of the record": min(f.same_mars2, f.same_critic) >= 0.95,
        "The blur of the VAE alone costs the judges next to nothing": (
            max(f.clear_mars2 - f.soft_mars2, f.clear_critic - f.soft_critic) < 0.05
        ),
        "CLIP-T points to the wrong one of two images": f.follows_CLIP_T < 0.45,
        "CLIP-I is, if anything, somewhat better than a coin": 0.5 < f.follows_CLIP_I < 0.7,
    }
    return own | by_eye.statements(f) | other_words.statements(f)


def claims(_: Facts) -> list[Claim]:
    """Return no claims: those about judging stand in the chapter."""
    return []


def by_family(scale: str) -> Figure:
    """Draw the miniature's balanced accuracy on single questions about the subject, by the image's family."""
    shares = judge_card(scale)["subject"]["hard, by family"]
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return figures.bars(ordered, label="balanced accuracy", colours=dict.fromkeys(ordered, SUBJECT))


def hardest(scale: str, axis: str, count: int = 6) -> Figure:
    """Show rivals beside a reference of what they are taken for: those first that deceive both judges."""
    exam = records.recorded(f"judges{records.suffix(scale)}")
    chosen = exam["chosen"]
    other = next(name for name in exam["verdicts"] if name != chosen)
    rivals = []
    for name, scores in exam["scores"][ENCODER[axis]].items():
        for i in range(exam["each"], 2 * exam["each"]) if zoo.axis(name) == axis else []:  # those of others
            fooled = [exam["verdicts"][judge][name][i] == "1" for judge in (chosen, other)]
            rivals.append((*fooled, scores[i], name, i))
    once: dict[str, tuple] = {}  # the hardest of each name
    for rival in sorted(rivals, key=lambda rival: rival[:3], reverse=True):
        once.setdefault(rival[3], rival)
    shown = list(once.values())[:count]
    drawn = {c.name: c for c in cases(exam["each"], exam["seed"], [name for *_, name, _ in shown])}
    tiles, titles = [], []
    for fooled, _, _, name, i in shown:
        edge = WRONGLY if fooled else SUBJECT
        tiles += [framed(drawn[name].references[0], "#ffffff"), framed(drawn[name].images[i], edge, width=3)]
        titles += [name.replace(" illustration", ""), "rival"]
    return figures.image_grid(np.stack(tiles), titles=titles, per_row=4, width=5.2)


def best_of(board: Board, methods: tuple[str, ...]) -> Figure:
    """Draw the best case over the number of images, averaged over every choice of them."""
    images = board.of(methods[0]).shape[1]

    def curve(hits: np.ndarray) -> list[float]:
        missed = [[comb(images - int(h), k) / comb(images, k) for h in hits] for k in range(1, images + 1)]
        return [1 - float(np.mean(row)) for row in missed]

    return figures.lines(
        range(1, images + 1),
        {name_of(m): curve(board.of(m).sum(1)) for m in methods},
        xlabel="images of each pair",
        ylabel="pairs with a right one",
        colours={name_of(m): HUES.get(m, GREY) for m in methods},
    )


def followed(board: Board, scale: str, pairs: int) -> np.ndarray:
    """Return how often metrics put two images of one pair in the order of the judge: (metrics, 3).

    Columns are the verdicts on subject, style and both; a tie counts half.
    """
    clip, dino = (load_encoder(source) for source in encoders(scale))
    sheet = board.pictures()[:pairs]
    measured: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    for (subject, style), images in zip(board.pairs, sheet, strict=False):
        words = zoo.words(style=style, cls=zoo.class_of(subject))
        measured["CLIP-I"].append(image_similarity(clip, images, orders.references(style)))
        measured["DINO"].append(image_similarity(dino, images, orders.references(subject)))
        measured["CLIP-T"].append(text_similarity(clip, images, words))
    return np.array(
        [
            [_order(scores, board, axis) for axis in ("subject", "style", "right")]
            for scores in measured.values()
        ]
    )


def _order(scores: list[np.ndarray], board: Board, axis: boards.Axis) -> float:
    found = []
    for p, row in enumerate(scores):
        yes = np.array([board.of(m, axis)[p, 0] for m in board.methods])
        if yes.any() and not yes.all():
            gaps = np.subtract.outer(row[yes], row[~yes])
            found.append((gaps > 0).mean() + 0.5 * (gaps == 0).mean())
    return float(np.mean(found)) if found else 0.5


def followed_table(follows: np.ndarray) -> Figure:
    """Show `followed` as a heat map."""
    return figures.heat_maps(
        {"in the critic's order": follows}, rows=METRICS, columns=["subject", "style", "both"]
    )
