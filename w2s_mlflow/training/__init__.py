"""The training loop and its parts: batches, micro-batches, checkpoints, trainable parameters and sharding."""
