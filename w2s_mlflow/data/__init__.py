"""Data: users' tables, rows of tasks, splits, gold labels (every read is counted), external weak labels, and spans of text."""
