"""Code shared by the stages: options, runs, finetuning, ground truth and scoring."""
