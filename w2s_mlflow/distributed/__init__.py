"""Several processes that train one model: how they are launched, and their process group."""
