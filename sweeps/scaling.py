"""Every pair of a weak and a larger model, without and with the confidence loss: PGR against both sizes (Figure 1)."""

LADDER = ["chess-27k", "chess-43k", "chess-60k", "chess-121k", "chess-222k", "chess-426k"]

SETTINGS = [
    {"stage": "student", "weak": weak, "strong": strong, "method": method, "early_stopping": "none"}
    for place, weak in enumerate(LADDER)
    for strong in LADDER[place + 1 :]
    for method in ("baseline", "confidence")
]
