"""Standalone HTML page of a figure, with tooltips on points and legend entries that hide their method when clicked."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure

from w2s_mlflow.figures import plain_text
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
"""JavaScript that adds tooltips and clickable legend entries. It must be included once per page."""


def svg(figure: Figure, name: str) -> str:
    """Return the figure as an SVG element with selectable text; equal figures give identical output.

    Args:
        name: salt of the element ids, so that clip paths of different figures on a page have different ids.
    """
    with plain_text(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    element = buffer.getvalue()
    return re.sub(r"^.*?(?=<svg)", "", element, count=1, flags=re.DOTALL)


def page(element: str, title: str, caption: str) -> str:
    """Return one figure as a standalone HTML page that needs no network."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<body style="font-family: sans-serif; max-width: 75em; margin: 2em auto">{element}<p>{caption}</p>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )
