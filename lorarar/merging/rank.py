"""The rank of an update: its singular values, and the nearest adapter of a lower rank."""

import json

import torch
from torch import Tensor

from lorarar.lora import LoRA, LoRAError, Pair
from lorarar.merging.pairs import (
    Progress,
    as_matrices,
    batches,
    fitted_to,
    parallel,
    shaped_like,
    stacked,
    working_dtype,
)


def svd_of_pair(up: Tensor, down: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The SVD of up @ down, (…, out, r) and (…, r, in), by QR of both and an SVD of the (r × r) core.

    All singular values come back, and the vectors of the first ``rank`` (of all unless given).
    """
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.mT)
    u, s, vh = torch.linalg.svd(r_up @ r_down.mT, full_matrices=False)
    return q_up @ u[..., :rank], s, vh[..., :rank, :] @ q_down.mT


def truncated_svd(delta: Tensor, rank: int) -> Pair:
    """The best factors of ``rank`` for a dense (out, in) matrix, from the eigenvectors of its Gram matrix."""
    if delta.shape[0] > delta.shape[1]:
        up, down = truncated_svd(delta.mT, rank)
        return down.mT.contiguous(), up.mT.contiguous()
    wide = delta.double()
    _, vectors = torch.linalg.eigh(wide @ wide.mT)
    up = vectors[:, -rank:].flip(1)  # (out, k), strongest first
    down = up.mT @ wide
    root = torch.linalg.vector_norm(down, dim=1).sqrt()  # √σ on either side
    up, down = up * root, down / torch.where(root > 0, root, 1)[:, None]
    return up.to(delta.dtype), down.to(delta.dtype)


def singular_values(pair: Pair) -> Tensor:
    """The singular values of ΔW, largest first, without forming it: (min(out, r, in),), float64."""
    up, down = (x.flatten(1).double() for x in pair)
    r_up, r_down = torch.linalg.qr(up, mode="r").R, torch.linalg.qr(down.mT, mode="r").R
    return torch.linalg.svdvals(r_up @ r_down.mT)


def compress(lora: LoRA, rank: int, *, progress: Progress = iter) -> LoRA:
    """Bring every layer to at most ``rank``, with the least possible error (Eckart and Young, 1936).

    ΔW = B A with QRs B = Q_b R_b and Aᵀ = Q_a R_a has the singular values of the small R_b R_aᵀ; its SVD, cut
    at ``rank``, gives the new factors, each with √σ. A layer of no more than ``rank`` stays as it is. The
    share of the energy ‖ΔW‖² that is kept, over all layers and in the worst of them, is in the metadata.

    Raises:
        LoRAError: ``rank`` is not positive, or a convolution's up is not 1 × 1.
    """
    if rank < 1:
        raise LoRAError(f"rank {rank}: expected at least 1")
    compressed = dict(lora)
    small = [layer for layer, (_, down) in lora.items() if down.shape[0] <= rank]
    large = [layer for layer in lora if lora[layer][1].shape[0] > rank]
    kept = total = sum((singular_values(lora[layer]).square().sum() for layer in small), torch.zeros(()))
    worst = (1.0, "")

    def work(names: list[str]) -> tuple[dict[str, Pair], Tensor]:
        pairs = [as_matrices(layer, lora[layer]) for layer in names]
        dtype = pairs[0][1].dtype
        up, down = (stacked(x).to(working_dtype(dtype)) for x in zip(*pairs, strict=True))
        u, s, vh = svd_of_pair(up, down, rank)
        root = s[:, :rank].sqrt()
        factors = fitted_to(u * root[:, None], root[..., None] * vh, dtype, names[0])
        ups, downs = (x.to(dtype).contiguous() for x in factors)
        each = zip(names, ups.unbind(), downs.unbind(), strict=True)
        small = {layer: shaped_like((u_k, d_k), lora[layer]) for layer, u_k, d_k in each}
        return small, s.double().square()

    device = next(iter(lora.values()))[0].device if lora else torch.device("cpu")
    for pairs, energy in parallel(work, list(batches(lora, lora, large)), device, progress):
        compressed.update(pairs)
        shares = (energy[:, :rank].sum(1) / energy.sum(1).clamp(min=1e-300)).tolist()
        kept, total = kept + energy[:, :rank].sum().cpu(), total + energy.sum().cpu()
        worst = min(worst, *zip(shares, pairs, strict=True))
    share = float(kept / total) if float(total) else 1.0
    metadata = {
        **lora.metadata,
        "lorarar_rank": str(rank),
        "lorarar_energy_kept": json.dumps(
            {"all": round(share, 6), "lowest": round(worst[0], 6), "lowest_layer": worst[1]}
        ),
    }
    return LoRA(compressed, **{**lora.about, "metadata": metadata})
