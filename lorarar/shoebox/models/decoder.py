"""A sharper decoder for the latents there are: the encoder, the UNet and every LoRA stay as they are.

A decoder that is trained on errors alone answers with the mean of all pictures a latent may stand for, which
is blurred. Here a small critic of patches, as in Esser et al. 2021 and Rombach et al. 2022, tells its
pictures from drawings while it learns (its relativistic form: Jolicoeur-Martineau 2019).
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lorarar.atomic import atomic
from lorarar.shoebox.models.loop import GROUPS, Recipe, card, command, fit, to_bytes, to_unit
from lorarar.shoebox.models.sharpness import laplacian
from lorarar.shoebox.models.train import psnr
from lorarar.shoebox.world import world

RECIPE = Recipe(1_300, 4, 5e-4, decay=0.6, weight_decay=1e-4)
WEIGHT = 0.5
"""Weight of the adversarial term against the mean absolute error."""
PENALTY = 0.05
"""Weight of the gradient penalty on drawings (Mescheder et al. 2018)."""
NOISE = 0.1
"""Largest standard deviation of noise on a latent in training: a UNet's latents are not the encoder's."""


class Patches(nn.Module):
    """Tells drawings from decoded pictures patch by patch: (n, 3, h, w) in [-1, 1] to (n, 1, h/4, w/4)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(6, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):  # the default would begin with answers near nothing
                nn.init.kaiming_normal_(layer.weight, 0.2)
        with torch.no_grad():
            self.layers[-1].weight *= 0.1  # and without this, with slopes that the penalty has to undo

    def forward(self, images: Tensor) -> Tensor:
        """Judge each patch, of the picture and its Laplacian: the higher, the more it looks drawn."""
        around = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return self.layers(torch.cat([images, 3 * (images - around)], 1))


@torch.no_grad()
def widen(vae: AutoencoderKL, noise: float = 0.3, seed: int = 0) -> AutoencoderKL:
    """Return the autoencoder with twice as many channels in every layer, and the same function.

    Each channel is doubled within its group of normalisation, and what reads it gives each half the weight
    (Net2Net, Chen et al. 2016). In the decoder the halves differ by `noise`, as a share of the weights'
    standard deviation, and can learn different things; the encoder is not meant to be trained.
    """
    config = dict(vae.config)
    config["block_out_channels"] = tuple(2 * c for c in vae.config.block_out_channels)
    wide = AutoencoderKL.from_config(config)
    groups = vae.config.norm_num_groups
    numbers = torch.Generator().manual_seed(seed)

    def doubled(channels: int) -> Tensor:
        each = torch.arange(channels).view(groups, 1, -1)
        return each.expand(-1, 2, -1).flatten()

    old = dict(vae.named_modules())
    for name, module in wide.named_modules():
        before = old[name]
        if isinstance(module, nn.GroupNorm):
            order = doubled(before.num_channels)
            module.weight.copy_(before.weight[order])
            module.bias.copy_(before.bias[order])
        elif isinstance(module, nn.Conv2d):
            weight, bias = before.weight, before.bias
            if module.out_channels != before.out_channels:
                order = doubled(before.out_channels)
                weight, bias = weight[order], bias[order]
            if module.in_channels != before.in_channels:
                n = before.in_channels // groups
                weight = weight[:, doubled(before.in_channels)] / 2
                if name.startswith("decoder"):
                    pairs = weight.view(len(weight), groups, 2, n, *weight.shape[2:])
                    spread = noise * torch.randn(pairs[:, :, 0].shape, generator=numbers)
                    spread = spread * pairs[:, :, 0].std()
                    pairs = torch.stack([pairs[:, :, 0] + spread, pairs[:, :, 1] - spread], 2)
                    weight = pairs.reshape(weight.shape)
            module.weight.copy_(weight)
            module.bias.copy_(bias)
    return wide


def adversarial(patches: Patches, made: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the decoder loses where its pictures look less drawn than the drawings, and the reverse.

    Each patch is compared with its own original. Only the second term reaches the parameters of `patches`.
    """
    patches.requires_grad_(False)
    for_decoder = F.softplus(patches(drawn) - patches(made)).mean()
    patches.requires_grad_(True)
    for_patches = F.softplus(patches(made.detach()) - patches(drawn)).mean()
    return for_decoder, for_patches


def penalty(patches: Patches, drawn: Tensor) -> Tensor:
    """Squared gradient of `patches` on drawings (R1 of Mescheder et al. 2018), as a mean over patches."""
    drawn = drawn.detach().requires_grad_(True)
    said = patches(drawn)
    (slope,) = torch.autograd.grad(said.sum(), drawn, create_graph=True)
    return slope.square().sum() / said.numel()


def train_decoder(
    out: Path,
    init: Path,
    run: Path,
    recipe: Recipe = RECIPE,
    seed: int = 0,
    device: str = "cpu",
    groups: int = GROUPS,
    *,
    wide: bool = False,
    weight: float = WEIGHT,
    noise: float = NOISE,
    images: np.ndarray | None = None,
) -> dict:
    """Train the decoder of the pipeline in `init` on, its latents staying as they are, and measure it.

    `init` has the autoencoder in vae/, and may have what tells patches apart, as an earlier `out` does.
    wide: with twice the channels. weight, noise: see `WEIGHT`, `NOISE`; images: drawings to train on, instead
    of `groups` groups of them. Writes `out`/vae and `out`/patches.safetensors in half precision.
    """
    if images is None:
        images, _, _ = world.dataset(groups, seed)
    torch.manual_seed(seed)
    source = AutoencoderKL.from_pretrained(init / "vae", torch_dtype=torch.float32).to(device).eval()
    vae = widen(source) if wide else copy.deepcopy(source)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    patches = Patches()
    if (known := init / "patches.safetensors").is_file():
        patches.load_state_dict({k: v.float() for k, v in load_file(known).items()})
    model = nn.ModuleDict({"vae": vae, "patches": patches}).to(device)

    def loss(indices: Tensor, step: int) -> dict[str, Tensor]:
        drawn = to_unit(images[np.sort(indices.numpy())]).to(device)
        drawn = torch.where(torch.rand(len(drawn), 1, 1, 1, device=device) < 0.5, drawn, drawn.flip(3))
        with torch.no_grad():
            code = source.encode(drawn).latent_dist.mode()
            spread = code.std((0, 2, 3), keepdim=True) * noise * torch.rand(len(code), 1, 1, 1, device=device)
            code = code + spread * torch.randn_like(code)
        made = vae.decode(code).sample.float()
        error = made - drawn
        patch = F.avg_pool2d(error, 8).pow(2).mean() + F.avg_pool2d(error, 2).pow(2).mean()
        terms = {"error": error.abs().mean() + 2 * error.pow(2).mean() + 4 * patch}
        if weight:
            terms["decoder"], terms["patches"] = adversarial(patches, made, drawn)
            total = terms["error"] + weight * terms["decoder"] + terms["patches"]
            terms["penalty"] = penalty(
                patches, drawn
            )  # at every step: now and then, it is lost in the clipping
            total = total + PENALTY * terms["penalty"]
        else:
            total = terms["error"]
        edges = (laplacian(to_bytes(x.detach())).mean() for x in (made, drawn))
        terms["sharp"] = torch.tensor(next(edges) / next(edges))
        return {"loss": total, **terms, "psnr": psnr(made.detach(), drawn).mean()}

    spent = fit("decoder", model, loss, len(images), recipe, run=run, seed=seed, device=device)
    vae.half().save_pretrained(out / "vae")
    half = {k: v.half().contiguous() for k, v in patches.state_dict().items()}
    with atomic(out / "patches.safetensors") as aside:
        save_file(half, aside)
    facts = {"seed": seed, "recipe": asdict(recipe), **spent, "weight": weight, "penalty": PENALTY}
    facts |= {"noise": noise, "wide": wide, "began from": str(init)}
    said = command("decoder", recipe, seed, init) + f" --groups {groups}" + (" --wide" if wide else "")
    card(out, "A sharper decoder for the base's latents", said, facts)
    return facts
