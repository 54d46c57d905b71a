"""Names that chapters of the old form import; `lorarar.bookkit` is where they are now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorarar.bookkit.cover import cover as cover
from lorarar.bookkit.figures import bars as bars
from lorarar.bookkit.figures import contact_sheet as contact_sheet
from lorarar.bookkit.figures import heat_maps
from lorarar.bookkit.figures import image_grid as image_grid
from lorarar.bookkit.figures import lines as lines
from lorarar.bookkit.frames import Frames as Frames
from lorarar.bookkit.style import *  # noqa: F403
from lorarar.bookkit.style import use as use

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


def heatmap(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    form: str = ".2f",
    diverging: bool = False,
    label: str = "",
) -> Figure:
    """Show one matrix with the number in every cell."""
    return heat_maps({label: values}, rows=rows, columns=columns, form=form, diverging=diverging)
