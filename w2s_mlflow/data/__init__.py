"""Rows: loading, splits, gold labels and the ledger of their reads, label files, spans of text."""
