"""A figure as a page: its SVG, with what is said of a point under the mouse, and methods that a click in the legend hides."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure

from w2s_mlflow.figures._drawing import LEGEND, SERIES, TIP

SCRIPT = f"""
document.querySelectorAll('g[id^="{TIP}"]').forEach(g => {{
  const title = document.createElementNS('http://www.w3.org/2000/svg', 'title');
  title.textContent = g.id.slice({len(TIP)});
  g.prepend(title);
  g.style.pointerEvents = 'all';
}});
document.querySelectorAll('g[id^="{LEGEND}"]').forEach(g => {{
  g.style.cursor = 'pointer';
  g.addEventListener('click', () => {{
    const hidden = g.style.opacity === '0.3';
    g.style.opacity = hidden ? '1' : '0.3';
    const name = g.id.slice({len(LEGEND)});
    g.closest('svg').querySelectorAll('g').forEach(other => {{
      if (other.id === '{SERIES}' + name) other.style.display = hidden ? '' : 'none';
    }});
  }});
}});
"""
"""What makes the gids of _drawing speak; once for any number of figures on a page."""


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element with real text; the same figure gives the same bytes.

    Args:
        name: tells its clip paths from those of other figures on one page.
    """
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    element = drawn.getvalue()
    return re.sub(r"^.*?(?=<svg)", "", element, count=1, flags=re.DOTALL)


def page(element: str, title: str, caption: str) -> str:
    """One figure as a page of its own, which needs no network."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<body style="font-family: sans-serif; max-width: 75em; margin: 2em auto">{element}<p>{caption}</p>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )
