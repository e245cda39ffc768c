"""Command line: one command per stage, and commands that list, compare, import and explain runs."""
