"""The paper's method, one file per stage; each has a `Config` and `run(Config) -> Result`, and finds the stages it needs."""
