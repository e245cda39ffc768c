"""The command line: one command per stage, and those that show what there is."""
