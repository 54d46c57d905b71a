"""LoRAs and files of them by hand, as trainers write them."""

import torch
from safetensors import safe_open
from safetensors.torch import save_file

rng = torch.Generator().manual_seed(5)


def pair(out, width, rank=2, *, kernel=None, dtype=torch.float32):
    shape = (kernel, kernel) if kernel else ()
    up, down = torch.randn(out, rank, generator=rng), torch.randn(rank, width, *shape, generator=rng)
    return (up.reshape(out, rank, *[1] * len(shape)).to(dtype), down.to(dtype))


def dense(pair, scale=1.0):
    up, down = (x.double().flatten(1).numpy() for x in pair)
    return scale * (up @ down)


def metadata_of(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def kohya(path, layers, metadata=None, alpha=1.0):
    tensors = {}
    for stem, (up, down) in layers.items():
        tensors |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down}
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, metadata=metadata)
    return path


UNETS = {
    "SDXL": ("input_blocks_4_1", "output_blocks_1_1", 2048),
    "SD 1.x": ("down_blocks_0_attentions_0", "up_blocks_3_attentions_2", 768),
    "SD 2.x": ("down_blocks_0_attentions_0", "up_blocks_3_attentions_2", 1024),
}


def unet_layers(base):
    *blocks, width = UNETS[base]
    return {f"lora_unet_{b}_transformer_blocks_0_attn2_to_k": pair(6, width) for b in blocks}


DEEP = [f"down_blocks.2.attentions.0.transformer_blocks.{n}" for n in range(10)]
KOALA = [
    f"down_blocks.{i}.attentions.0.transformer_blocks.{n}" for i, m in ((1, 2), (2, 5)) for n in range(m)
]
KOALA += [
    f"up_blocks.{i}.attentions.{j}.transformer_blocks.{n}"
    for i, m in ((0, 5), (1, 2))
    for j in (0, 1)
    for n in range(m)
]


def of(names, leaf="attn2.to_k", width=2048, component="unet"):
    return {f"{component}.{name}.{leaf}": pair(6, width) for name in names}
