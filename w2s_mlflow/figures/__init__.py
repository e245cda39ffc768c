"""One figure per file: `CAPTION`, `FRAMES` and `figure(*frames) -> matplotlib Figure`, from the same frames as the tables.

A figure with nothing to draw has no axes. The tooltip of a point is stored in its gid (_drawing.tip), which the SVG keeps.
"""
