"""Figures, one per file, each with `CAPTION`, `FRAMES` and `figure(*frames) -> matplotlib Figure`.

`FRAMES` names the frames to pass, as for the tables (`tables/__init__.py`). A figure with nothing to draw has no axes. A
point's tooltip is stored in its gid (_drawing.tip), which becomes the id of its SVG element.
"""
