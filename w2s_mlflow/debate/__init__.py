"""Debates: participants, turns, verdicts, metrics, transcripts, and the policy gradient that trains the strong side."""
