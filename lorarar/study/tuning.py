"""Which hypernetwork? Candidates compared on the validation pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lorarar.hypernet import load_network
from lorarar.pipelines import load_pipeline
from lorarar.stamp import sha256
from lorarar.study.cells import Setting
from lorarar.study.images import images
from lorarar.study.records import written
from lorarar.study.statistics import crossed, grid
from lorarar.study.tables import scoreboard
from lorarar.study.verdicts import Judge, judged


def tuned(run: Setting, by: Judge, networks: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Make and judge LoRA.rar's images with each of several hypernetworks, to choose one of them.

    Args:
        run: the setting, on validation; each network's cells lie in ``run.out/tuning/<its name>``.
        by: who judges.
        networks: files of `lorarar train-hypernetwork`.

    Returns:
        {file's name: {"recipe": how it was trained, "sha256", the entries of `scoreboard`, "ahead": by how
        much its average case is ahead of the first network's, and "verdicts": see `written`}}.

    Raises:
        ValueError: the split is test, on which nothing is chosen; or two files have one name, or one is no
            hypernetwork.
    """
    if run.split == "test":
        raise ValueError("a hypernetwork is chosen on validation, never on test")
    if len({path.stem for path in networks}) < len(networks):
        raise ValueError("give each hypernetwork's file a name of its own")
    recipes = {path: load_network(path).metadata.get("lorarar_training", "{}") for path in networks}
    pipe = load_pipeline(run.scale, run.device)
    found, first, subjects = {}, None, len(run.subjects)
    for path, recipe in recipes.items():
        own = replace(run, hypernetwork=path, out=run.out / "tuning" / path.stem)
        images(own, ["lorarar"], pipe=pipe)
        said = judged(own, by, ["lorarar"])
        scores = grid(said["lorarar"], subjects)
        first = scores if first is None else first
        found[path.stem] = {
            "recipe": json.loads(recipe),
            "sha256": sha256(path),
            **scoreboard(said, subjects)["lorarar"],
            "ahead": crossed(scores - first),
            "verdicts": written(said["lorarar"]),
        }
    return found
