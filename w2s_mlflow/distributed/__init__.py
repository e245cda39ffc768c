"""Training of one model by several processes: their launch and their process group."""
