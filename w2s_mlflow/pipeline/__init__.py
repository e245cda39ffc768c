"""What the stages share: options, runs, finetuning, ground truth and scoring."""
