"""What LyCORIS (arXiv 2309.14859) trains beside LoRA, as the LoRA it equals: LoHa, LoKr, Tucker's kernel.

A convolution's update is (out, in, kh, kw). With its last three dimensions as one it is a matrix like any
other, and every formula here is one of matrices (out, n), n = in·kh·kw.
"""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

# The convolutions of diffusers' UNets by their last name, and their kernel; a file of LoHa does not say it.
_KERNEL = {"conv": 3, "conv1": 3, "conv2": 3, "conv_in": 3, "conv_out": 3, "conv_shortcut": 1}


def with_kernel(down: Tensor, mid: Tensor) -> Tensor:
    """The ``down`` (r, in, kh, kw) of Tucker's ``mid`` (r, s, kh, kw) and ``down`` (s, in, 1, 1).

    ΔW[o, i, k, l] = Σ_r up[o, r] Σ_s mid[r, s, k, l] down[s, i]: of the same rank, and nothing is lost; in
    float32 or better.

    Raises:
        ValueError: shapes that do not fit.
    """
    if mid.ndim < 3 or mid.shape[1] != down.shape[0] or down.shape[2:].numel() != 1:
        raise ValueError
    mid, down = (x if x.dtype == torch.float64 else x.float() for x in (mid, down))
    return torch.einsum("rs...,si->ri...", mid, down.flatten(1))


class _Factors:
    """Named tensors from which every matrix is taken once."""

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        self.left = {part: x.float() for part, x in parts.items()}
        self.kernel: tuple[int, ...] | None = None

    def take(self, name: str) -> Tensor:
        return self.left.pop(name)

    def product(self, name: str, tucker: str) -> tuple[Tensor, Tensor]:
        """Two matrices (out, r) and (r, n) whose product is the matrix ``name``."""
        if name in self.left:  # stored whole: W·I or I·W
            whole = self.take(name)
            self.kernel = tuple(whole.shape[2:]) or self.kernel
            whole = whole.flatten(1)
            eye = torch.eye(min(whole.shape))
            return (eye, whole) if whole.shape[0] < whole.shape[1] else (whole, eye)
        a, b = self.take(f"{name}_a"), self.take(f"{name}_b")
        if tucker in self.left:
            core = self.take(tucker)  # (r, s, kh, kw); a is (r, out) here
            self.kernel = tuple(core.shape[2:])
            return a.T.contiguous(), with_kernel(b, core).flatten(1).contiguous()
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
            raise ValueError
        return a, b


def converted(layer: str, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, int | None]:
    """The LoRA that equals a LoHa or a LoKr without its scale, in float32.

    LoHa, (A₁B₁) ∘ (A₂B₂): the row-wise Kronecker products of A₁, A₂ and of B₁, B₂; the ranks multiply.
    LoKr, (A₁B₁) ⊗ (A₂B₂) = (A₁ ⊗ A₂)(B₁ ⊗ B₂); a side that is stored whole, W, counts as W·I or I·W.
    Where that rank exceeds the layer's own, ΔW·I or I·ΔW is smaller and is returned. No SVD, no loss.

    Returns ``up``, ``down`` and the rank that alpha is divided by (None when both sides are whole).

    Raises:
        ValueError: parts are missing, of another kind, not finite, or do not fit.
    """
    x = _Factors(parts)
    if not parts or not all(t.ndim >= 2 and t.numel() and bool(t.isfinite().all()) for t in parts.values()):
        raise ValueError
    rank: int | None
    if "hada_w1_a" in parts:
        rank = parts["hada_w1_b"].shape[0]
        (a1, b1), (a2, b2) = x.product("hada_w1", "hada_t1"), x.product("hada_w2", "hada_t2")
        up = torch.einsum("oi,oj->oij", a1, a2).flatten(1)
        down = torch.einsum("im,jm->ijm", b1, b2).flatten(0, 1)
    else:
        rank = next((parts[f"lokr_w{i}_b"].shape[0] for i in (2, 1) if f"lokr_w{i}_b" in parts), None)
        a1, b1 = x.product("lokr_w1", "")
        if x.kernel and math.prod(x.kernel) != 1:
            raise ValueError  # the kernel is the second factor's
        (a2, b2) = x.product("lokr_w2", "lokr_t2")
        up, down = torch.kron(a1, a2), torch.kron(b1, b2)
    if x.left:
        raise ValueError
    if up.shape[1] > min(up.shape[0], down.shape[1]):
        whole = up @ down
        eye = torch.eye(min(whole.shape))
        up, down = (eye, whole) if whole.shape[0] < whole.shape[1] else (whole, eye)
    kernel = x.kernel if x.kernel is not None else kernel_of(layer)
    if kernel:
        up, down = up.reshape(*up.shape, *[1] * len(kernel)), down.reshape(len(down), -1, *kernel)
    return up, down, rank


def kernel_of(layer: str) -> tuple[int, ...]:
    """The kernel of a UNet's convolution by its name; () for a linear layer."""
    size = _KERNEL.get(layer.rpartition(".")[2]) if re.match(r"unet\.", layer) else None
    return (size, size) if size else ()
