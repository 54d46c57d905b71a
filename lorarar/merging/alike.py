"""Two adapters in one spelling: names, fused layers and shapes of the one as of the other, exactly."""

from collections import defaultdict

from lorarar.lora import LoRA, LoRAError, Pair, kernel_of, parts_of, split

Renamed = dict[str, str]


def alike(content: LoRA, style: LoRA) -> tuple[LoRA, LoRA]:
    """Both adapters with one name and one shape for what is one layer; themselves where they have.

    A layer of a model that no table knows may have dots in one file and underscores in the other. A layer
    that is fused in one adapter and split in the other is split in both (`lorarar.lora.split`). The same
    weight as a matrix (out, in) and as a convolution of 1 × 1 becomes a matrix, but for what is a convolution
    in the model.

    Raises:
        LoRAError: a fused layer cannot be split.
    """
    content, style = _one_spelling(content, style)
    users: defaultdict[str, set[str]] = defaultdict(set)
    if content.keys() != style.keys():
        for layer in (*content, *style):
            for part in parts_of(layer):
                users[part].add(layer)
    clash = {layer for layers in users.values() if len(layers) > 1 for layer in layers}
    content, style = split(content, clash), split(style, clash)
    differ = [n for n in content if n in style and content[n][0].ndim != style[n][0].ndim]
    return _one_shape(content, differ), _one_shape(style, differ)


def _one_spelling(content: LoRA, style: LoRA) -> tuple[LoRA, LoRA]:
    alone = {n.replace(".", "_"): n for n in style if n not in content}
    names: tuple[Renamed, Renamed] = {}, {}
    for ours in content if alone else ():
        if ours not in style and (theirs := alone.get(ours.replace(".", "_"))):
            more = max(ours, theirs, key=lambda n: n.count("."))
            names[0][ours] = names[1][theirs] = more
    return _renamed(content, names[0]), _renamed(style, names[1])


def _renamed(lora: LoRA, names: Renamed) -> LoRA:
    return _with({names.get(n, n): pair for n, pair in lora.items()}, lora, names) if names else lora


def _with(pairs: dict[str, Pair], lora: LoRA, renamed: Renamed) -> LoRA:
    if len(pairs) != len(lora):
        raise LoRAError(f"layer {min(renamed.values())} is in one LoRA under two names; export it again")
    alphas = {renamed.get(n, n): alpha for n, alpha in lora.alphas.items()}
    result = LoRA(pairs, alphas=alphas, **lora.about)
    stored = {renamed.get(n, n): kept for n, kept in lora.stored.items()}
    result.stored = {n: (up, scale) for n, (up, scale) in stored.items() if up.shape == pairs[n][0].shape}
    return result


def _one_shape(lora: LoRA, layers: list[str]) -> LoRA:
    changed = {}
    for layer in layers:
        up, down = lora[layer]
        if down.shape[2:].numel() == 1:
            ones = (
                (1, 1) if kernel_of(layer) or (lora.base.startswith("SD 1") and "attentions" in layer) else ()
            )
            changed[layer] = up.reshape(*up.shape[:2], *ones), down.reshape(*down.shape[:2], *ones)
    return _with({**lora, **changed}, lora, {}) if changed else lora
