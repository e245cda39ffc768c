"""Data: loading of tasks, splits, gold labels (every read is counted), files of external weak labels, and spans of text."""
