"""The default experiment: one supervisor, three student sizes, two methods, and the controls."""

SETTINGS = [{"stage": "student", "strong": "chess-93k"}]
