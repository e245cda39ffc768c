"""One file per stage, with a `Config` and `run(Config) -> Result`; a stage runs the stages that it depends on."""
