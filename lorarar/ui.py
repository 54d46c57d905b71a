"""A page for the browser: two LoRA files in, a report and the merged file out (``lorarar ui``).

It is the command `lorarar merge` with fields for its options. Needs Gradio: ``pip install 'lorarar[ui]'``.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorarar.lora import FORMATS, LoRA, describe, load_lora, own_format, report, save_lora
from lorarar.merging import METHODS, merge

if TYPE_CHECKING:
    import gradio

AS_INPUTS = "as the inputs"


def merge_files(
    content: str | None,
    style: str | None,
    method: str,
    content_weight: float,
    style_weight: float,
    hypernetwork: str | None,
    coefficients: str | None,
    rank: int | None,
    format: str,
    folder: Path,
) -> tuple[str, str | None]:
    """Merge two files into a new one in ``folder``: what to say of it, and its path; None if it failed."""
    try:
        if not content or not style:
            raise ValueError("choose two files: a subject's LoRA and a style's")
        sides = [load_lora(content), load_lora(style)]
        merged = merge(
            *sides,
            method,
            content_weight=content_weight,
            style_weight=style_weight,
            rank=int(rank) if rank else None,
            **_needed(hypernetwork, coefficients),
        )
        stems = (Path(file).stem for file in (content, style))
        path = Path(tempfile.mkdtemp(dir=folder)) / f"{'-'.join(stems)[:120]}.safetensors"
        save_lora(merged, path, format=own_format(*sides) if format == AS_INPUTS else format)
        return report(describe(load_lora(path))), str(path)
    except (ValueError, OSError, MemoryError) as error:  # LoRAError is a ValueError
        return " ".join(str(error).split()) or type(error).__name__, None


def _needed(hypernetwork: str | None, coefficients: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if hypernetwork:
        from lorarar.hypernet import load_network

        network = load_network(hypernetwork)
        options = {"hypernetwork": network, **network.merge_options}
    if coefficients:
        from lorarar.lora import load_coefficients

        options["coefficients"] = load_coefficients(coefficients)
    return options


def look(file: str | None) -> str:
    """What `lorarar info` says of a file, or why it cannot be read; nothing for no file."""
    if not file:
        return ""
    try:
        lora: LoRA = load_lora(file)
        return report(describe(lora))
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())


def page() -> "gradio.Blocks":
    """Build the page."""
    import gradio as gr

    folder = tempfile.TemporaryDirectory(prefix="lorarar-ui-")
    with gr.Blocks(title="lorarar", analytics_enabled=False) as blocks:
        blocks.folder = folder  # its files live as long as the page
        gr.Markdown("# Merge a subject LoRA and a style LoRA\nBoth for one base model, as `.safetensors`.")
        with gr.Row():
            sides = []
            for name in ("Content (subject)", "Style"):
                with gr.Column():
                    side = gr.File(label=name, file_types=[".safetensors"])
                    said = gr.Textbox(label=f"{name}: what is in it", lines=8, max_lines=14)
                    side.change(look, side, said)
                    sides.append(side)
        with gr.Row():
            method = gr.Dropdown(list(METHODS), value="direct", label="Method")
            weights = [
                gr.Slider(-2, 2, value=1, step=0.05, label=f"{side} weight") for side in ("Content", "Style")
            ]
            rank = gr.Number(label="Rank (0: the sum of both)", precision=0, minimum=0, value=0)
            format = gr.Dropdown([AS_INPUTS, *FORMATS], value=AS_INPUTS, label="Format of the file")
        with gr.Accordion("For the methods lorarar, ziplora and table", open=False), gr.Row():
            networks = [
                gr.File(label=label, file_types=[".safetensors"])
                for label in ("Hypernetwork (lorarar)", "Coefficients (ziplora, table)")
            ]
        button = gr.Button("Merge", variant="primary")
        result = gr.Textbox(label="Result", lines=8, max_lines=20)
        merged = gr.File(label="Merged LoRA", interactive=False)

        def run(*values: Any) -> tuple[str, str | None]:
            return merge_files(*values, folder=Path(folder.name))

        button.click(run, [*sides, method, *weights, *networks, rank, format], [result, merged])
    return blocks


def serve(host: str, port: int) -> None:
    """Serve the page until the process is ended.

    Raises:
        OSError: the port is taken.
    """
    blocks = page()
    print(f"http://{host}:{port}", flush=True)
    # A report's columns stand below one another.
    blocks.launch(
        server_name=host,
        server_port=port,
        quiet=True,
        css="textarea { font-family: monospace; white-space: pre }",
    )
