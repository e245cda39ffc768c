"""Figures, one per file, each with `CAPTION`, `FRAMES` and `figure(*frames) -> matplotlib Figure`.

`FRAMES` names the frames to pass, as for the tables (`tables/__init__.py`). A figure with nothing to draw has no axes. A
point's tooltip is stored in its gid (_drawing.tip), which becomes the id of its SVG element.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
"""Resolution of the PNG files."""


def save(draw: Callable[[], Figure], file: Path) -> Figure:
    """Draw a figure, write it to a PNG file unless it has no axes, and return it."""
    with plain_text():
        figure = draw()
        if figure.axes:
            file.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(file, dpi=DPI)
    return figure


@contextlib.contextmanager
def plain_text() -> Iterator[None]:
    """Draw all texts as they are: names of tasks and options may contain `$`, which matplotlib would read as mathematics.

    A figure is drawn and written within this context, because matplotlib makes some texts only when it writes.
    """
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False, "text.usetex": False}):
        yield
