"""Figures, one per file, each with `CAPTION`, `FRAMES` and `figure(*frames) -> matplotlib Figure`.

`FRAMES` names the frames to pass, as for the tables (`tables/__init__.py`). A figure with nothing to draw has no axes. A
point's tooltip is stored in its gid (_drawing.tip), which becomes the id of its SVG element.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def plain_text() -> Iterator[None]:
    """Draw all texts as they are: names of tasks and options may contain `$`, which matplotlib would read as mathematics."""
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False, "text.usetex": False}):
        yield
