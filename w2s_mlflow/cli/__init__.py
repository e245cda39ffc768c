"""Command line: one command per stage, and commands that list, compare and explain."""
