"""Distributed training of one model: how its processes are launched, and the process group that they form."""
