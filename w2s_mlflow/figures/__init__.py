"""One figure per file: `CAPTION`, `FRAMES` and `figure(*frames) -> matplotlib Figure`, from the same frames as the tables.

A figure without anything to draw has no axes. What is said of a point when the mouse rests on it stands in its gid
(_drawing.tip), which the SVG keeps.
"""
