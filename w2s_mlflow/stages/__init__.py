"""Stages, one per file: the options `Config`, and `run(Config) -> Result`, which also runs the stages that it depends on."""
