"""Build frames, tables, figures and a report from finished runs."""
