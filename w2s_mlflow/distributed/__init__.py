"""Distributed training of one model: the launch of the processes and their process group."""
