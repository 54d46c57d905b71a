"""Image files: found in a folder, read as RGB, upright; and frames that say right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}

Picture = str | Path | Image.Image | np.ndarray
Images = str | Path | Sequence[Picture] | np.ndarray


def image_files(folder: str | Path) -> list[Path]:
    """Return the image files of a folder in the order of their names. Raises ValueError if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"no image folder {folder}")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    return files


def read_images(images: Images) -> list[Image.Image]:
    """Read images as RGB, upright, transparency on white.

    Args:
        images: a folder, a list of files, PIL images or (h, w, 3) arrays, or a (n, h, w, 3) uint8 array.

    Raises:
        ValueError: there is no image, or one cannot be read, or an array has another shape or type.
    """
    pictures = image_files(images) if isinstance(images, str | Path) else list(images)
    if not pictures:
        raise ValueError("no images to train on")
    return [_upright(picture) for picture in pictures]


def _upright(picture: Picture) -> Image.Image:
    """Return one image as RGB, turned as its EXIF says, transparency on white."""
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
            raise ValueError(f"an image must be (h, w, 3) uint8, not {picture.shape} {picture.dtype}")
        return Image.fromarray(picture)
    try:
        image = ImageOps.exif_transpose(picture if isinstance(picture, Image.Image) else Image.open(picture))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {picture}: {error}") from error


GREEN, RED = (0, 158, 115), (213, 45, 45)


def framed(image: np.ndarray, right: bool) -> np.ndarray:
    """Put a frame around an image (h, w, 3) uint8, an eighth of it in all: green if right, else red."""
    height, width, _ = image.shape
    edge = max(height // 16, 1)
    around = np.empty((height + 2 * edge, width + 2 * edge, 3), np.uint8)
    around[:] = GREEN if right else RED
    around[edge:-edge, edge:-edge] = image
    return around
