"""From finished runs to frames, tables, figures and a report."""
