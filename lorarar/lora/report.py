"""What is in a LoRA file, as text."""

from collections.abc import Mapping
from typing import Any


def report(facts: Mapping[str, Any]) -> str:
    """The facts of `describe` as ``lorarar info`` prints them: a row each, then a table of the blocks."""
    alphas = _counts(facts["alphas"]) or "none in the file: alpha = rank"
    rows = [
        *(("sha256", source["sha256"]) for source in facts["sources"][:1]),
        ("dialect", facts["dialect"]),
        ("base model", facts["base"]),
        *((name, _short(text)) for name, text in facts["words"].items()),
        ("layers", f"{facts['layers']} ({_counts(facts['components'])})"),
        ("parameters", f"{facts['parameters']:,} ({', '.join(facts['dtypes'])})"),
        ("rank × layers", _counts(facts["ranks"])),
        ("alpha × layers", alphas),
        ("norm of ΔW", f"{facts['norm']:.4g}"),
    ]
    for key in sorted(k for k in facts["metadata"] if k.startswith("lorarar_")):
        rows.append((key.removeprefix("lorarar_"), _short(facts["metadata"][key])))
    indent = max(15, *(len(name) for name, _ in rows))
    lines = [f"{name:{indent}} {value}" for name, value in rows]
    width = max(5, *map(len, facts["blocks"]))
    lines += ["", f"{'block':{width}}  layers  rank      norm of ΔW"]
    for name, block in facts["blocks"].items():
        ranks = "–".join(str(r) for r in sorted({block["ranks"][0], block["ranks"][-1]}))
        lines.append(f"{name:{width}}  {block['layers']:6}  {ranks:8}  {block['norm']:.4g}")
    return "\n".join(lines)


def _counts(counts: Mapping[Any, int]) -> str:
    """``64 × 560, 32 × 12``; at most eight of them."""
    shown = [f"{k:g} × {n}" if isinstance(k, float) else f"{k} × {n}" for k, n in list(counts.items())[:8]]
    return ", ".join(shown + ["…"] * (len(counts) > 8))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 100 else f"{text[:99]}…"
