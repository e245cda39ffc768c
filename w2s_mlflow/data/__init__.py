"""Data: loading of tasks, splits, gold labels and a ledger of the gold labels read, label files, and spans of text."""
