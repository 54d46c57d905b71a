"""What a hypernetwork predicts for the pairs of the zoo, as maps of the UNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata

from lorarar.hypernet import Hypernetwork, layers_of
from lorarar.lora import LoRA
from lorarar.merging import Gates
from lorarar.shoebox import zoo
from lorarar.study import coefficients as co
from lorarar.study.cells import hypernetwork_of
from lorarar.study.ladder import validation_pairs
from lorarar.study.ruler import Pair


@dataclass(frozen=True)
class Predictions:
    """What a scale's hypernetwork predicts for some pairs.

    ``loras`` by name, ``said`` by pair: layer → (m_c, m_s); ``layers`` in the order of the UNet.
    """

    network: Hypernetwork
    loras: Mapping[str, LoRA]
    said: Mapping[Pair, Gates]
    layers: Sequence[str]

    @property
    def pairs(self) -> list[Pair]:
        """The pairs."""
        return list(self.said)

    @property
    def blocks(self) -> list[str]:
        """Where attention stands in the UNet, from its input to its output."""
        return list(dict.fromkeys(map(co.block_of, self.layers)))

    @property
    def kinds(self) -> list[str]:
        """The predicted parts of attention."""
        return [kind for kind in co.KINDS if kind in set(map(co.part_of, self.layers))]

    def maps(self, pair: Pair | None = None) -> np.ndarray:
        """Return the mean coefficients (2, blocks, parts) of a pair, or of all pairs together."""
        pairs = self.pairs if pair is None else [pair]
        return np.mean(
            [[co.means(self.said[p], side, self.blocks, self.kinds) for side in (0, 1)] for p in pairs], 0
        )

    def tables(self, side: int) -> list[np.ndarray]:
        """Return the coefficients of one side, (pairs, columns) for each layer."""
        return [np.stack([self.said[p][k][side].double().numpy() for p in self.pairs]) for k in self.layers]

    def kept(self, side: int, layers: Sequence[str]) -> float:
        """Return the share of energy that one side keeps in some layers, the mean over the pairs."""
        pairs = ((self.loras[pair[side]], gates) for pair, gates in self.said.items())
        return float(np.mean([co.energy_kept(lora, gates, side, layers) for lora, gates in pairs]))

    def spent(self, side: int, blocks: Sequence[str]) -> float:
        """Return which share of the kept energy of one side lies in some blocks, the mean over the pairs."""
        here = [k for k in self.layers if co.block_of(k) in blocks]
        pairs = [(self.loras[pair[side]], gates) for pair, gates in self.said.items()]
        return float(
            np.mean(
                [
                    co.energy(lora, gates, side, here) / co.energy(lora, gates, side, self.layers)
                    for lora, gates in pairs
                ]
            )
        )

    def energy(self) -> np.ndarray:
        """Return the share of energy that is kept (2, blocks, parts), the mean over the pairs."""
        kept = np.zeros((2, len(self.blocks), len(self.kinds)))
        for layer in self.layers:
            at = self.blocks.index(co.block_of(layer)), self.kinds.index(co.part_of(layer))
            for side in (0, 1):
                kept[side][at] = self.kept(side, [layer])
        return kept


def predict(scale: str = "shoebox", pairs: Sequence[Pair] | None = None) -> Predictions:
    """Ask a scale's hypernetwork about pairs of the zoo; all validation pairs by default."""
    network, pairs = Hypernetwork.load(hypernetwork_of(scale)), pairs or validation_pairs()
    loras = {name: zoo.load(name, scale) for name in dict.fromkeys(n for pair in pairs for n in pair)}
    parts = network.merge_options["parts"]
    with torch.no_grad():
        said = {pair: network.coefficients(*(loras[name] for name in pair), parts) for pair in pairs}
    layers = layers_of(loras[pairs[0][0]], parts)
    return Predictions(network, loras, said, layers)


def looks(p: Predictions, pairs: Sequence[Pair]) -> np.ndarray:
    """Return rank correlations of coefficients with a column's properties, within layers: (2 sides, 3)."""
    found = []
    for pair in pairs:
        content, style_lora = (p.loras[name] for name in pair)
        for layer in p.layers:
            known = [rankdata(v) for v in co.properties(content, style_lora, layer).values()]
            found.append([[co.correlation(rankdata(m), v) for v in known] for m in p.said[pair][layer]])
    return np.mean(found, 0)
