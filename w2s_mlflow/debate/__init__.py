"""Debates: participants, turns, verdicts, measures, transcripts and the policy gradient."""
