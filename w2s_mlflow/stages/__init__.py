"""Entry points, one file per stage: each has a `Config` and `run(Config) -> Result` and runs the stages it depends on."""
