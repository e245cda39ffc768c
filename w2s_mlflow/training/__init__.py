"""The training loop: batches, micro-batches, checkpoints, trainable parameters, sharding."""
