"""The cover of the book, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lorarar.bookkit.style import STYLE, SUBJECT

if TYPE_CHECKING:
    from PIL import Image


def cover(
    subjects: Sequence[str] = ("dog #6", "colorful sneaker", "cat #2", "teapot"),
    styles: Sequence[str] = (
        "watercolor painting #1",
        "oil painting #2",
        "line drawing",
        "glowing",
        "kid crayon drawing",
        "wooden sculpture",
        "abstract rainbow",
        "flat cartoon illustration #1",
    ),
    seed: int = 2,
) -> Image.Image:
    """Draw the book's cover: subjects down the side, styles along the top, and each subject in each style.

    Args:
        subjects: names in `lorarar.shoebox.world.subjects.SUBJECTS`, one row each.
        styles: names in `lorarar.shoebox.world.styles.STYLES`, one column each.
        seed: of poses and textures.
    """
    from PIL import Image, ImageDraw, ImageFilter

    from lorarar.shoebox.world.styles import STYLES, paint, random_style
    from lorarar.shoebox.world.subjects import CLASSES, SUBJECTS, random_identity, random_pose, scene

    side, gap, margin, ring, round_ = 168, 16, 40, 6, 26
    rng = np.random.default_rng(seed)

    def tile(pixels: np.ndarray, colour: str | None) -> Image.Image:
        drawn = np.clip(pixels if pixels.dtype == np.uint8 else pixels * 255, 0, 255).astype(np.uint8)
        # Drawings have hard edges; blurred at four times their size, the stairs along them are gone.
        large = Image.fromarray(drawn).resize((512, 512), Image.Resampling.NEAREST)
        picture = large.filter(ImageFilter.GaussianBlur(2.6)).resize((side, side), Image.Resampling.LANCZOS)
        picture = picture.convert("RGBA")
        mask = Image.new("L", (4 * side, 4 * side))
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * side - 1, 4 * side - 1), 4 * round_, fill=255)
        picture.putalpha(mask.resize((side, side), Image.Resampling.LANCZOS))
        if colour:
            frame = Image.new("RGBA", (4 * side, 4 * side))
            ImageDraw.Draw(frame).rounded_rectangle(
                (0, 0, 4 * side - 1, 4 * side - 1), 4 * round_, outline=colour, width=4 * ring
            )
            picture.alpha_composite(frame.resize((side, side), Image.Resampling.LANCZOS))
        return picture

    width = 2 * margin + (len(styles) + 1) * (side + gap)
    height = 2 * margin + (len(subjects) + 1) * (side + gap)
    shade = np.linspace(0, 1, width)[None, :, None] * np.ones((height, 1, 1))
    ground = (1 - shade) * (15, 32, 48) + shade * (44, 26, 22)
    page = Image.fromarray(ground.astype(np.uint8)).convert("RGBA")

    def place(row: int, column: int, picture: Image.Image) -> None:
        x = margin + column * (side + gap) + (gap if column else 0)
        y = margin + row * (side + gap) + (gap if row else 0)
        page.alpha_composite(picture, (x, y))

    # Along the top, each style is seen on something else than the subjects.
    taken = {SUBJECTS[name].cls for name in subjects}
    others = rng.permutation([cls for cls in CLASSES if cls not in taken])
    for column, name in enumerate(styles, 1):
        other = random_identity(rng, str(others[column % len(others)]))
        place(0, column, tile(paint(scene(other, random_pose(rng)), STYLES[name], rng), STYLE))
    for row, name in enumerate(subjects, 1):
        photo = random_style(rng, "photo")
        place(row, 0, tile(paint(scene(SUBJECTS[name], random_pose(rng)), photo, rng), SUBJECT))
        for column, style in enumerate(styles, 1):
            place(row, column, tile(paint(scene(SUBJECTS[name], random_pose(rng)), STYLES[style], rng), None))

    corner = Image.new("RGBA", (4 * side, 4 * side))
    pen, middle = ImageDraw.Draw(corner), 2 * side
    for dx, dy in ((0, 1), (1, 0)):
        reach_x, reach_y = (120 if dx else 16), (120 if dy else 16)
        pen.rounded_rectangle(
            (middle - reach_x, middle - reach_y, middle + reach_x, middle + reach_y), 16, fill="#e9edf2"
        )
    place(0, 0, corner.resize((side, side), Image.Resampling.LANCZOS))
    return page.convert("RGB")
