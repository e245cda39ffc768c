"""One figure per file: `CAPTION` and `figure(outcomes) -> matplotlib Figure`, from the same frame as the tables.

A figure without anything to draw has no axes. What is said of a point when the mouse rests on it stands in its gid
(_drawing.tip), which the SVG keeps.
"""
