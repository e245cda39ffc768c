"""One figure per file: `CAPTION` and `figure(outcomes) -> matplotlib Figure`, from the same frame as the tables."""
