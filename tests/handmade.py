"""LoRA files written by hand, and their updates, dense and in float64."""

import numpy as np
from safetensors.numpy import save_file

from lorarar.lora import delta_weight

KOHYA = ("{}.lora_up.weight", "{}.lora_down.weight", "{}.alpha")
PEFT = ("{}.lora_B.weight", "{}.lora_A.weight", "{}.alpha")


def flat(name):
    return name.replace(".", "_")


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def pair(out=9, width=3, rank=2, seed=0):
    return numbers(out, rank, seed=seed), numbers(rank, width, seed=seed + 1)


def dense(up, down, scale=1.0):
    return scale * (
        up.reshape(len(up), -1).astype(np.float64) @ down.reshape(len(down), -1).astype(np.float64)
    )


def write(path, layers, parts=KOHYA, metadata=None):
    """Stem → (up, down) or (up, down, alpha)."""
    tensors = {}
    for stem, values in layers.items():
        for part, x in zip(parts, values, strict=False):
            tensors[part.format(stem)] = np.asarray(x, np.float32)
    save_file(tensors, path, metadata)
    return path


def updates(lora):
    return {layer: delta_weight(x).flatten(1).double().numpy() for layer, x in lora.items()}


def close(got, expected):
    assert set(got) == set(expected)
    for layer, x in expected.items():
        np.testing.assert_allclose(got[layer], x, rtol=0, atol=1e-6 * np.abs(x).max(), err_msg=layer)
