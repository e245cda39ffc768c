"""Stages, one per file. Each has options, `Config`, and `run(Config) -> Result`, which also runs the stages it depends on."""
