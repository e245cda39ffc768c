"""Data: loading of rows, splits, gold labels with a ledger of their reads, label files, spans of text."""
