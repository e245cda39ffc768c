"""A small example of a grid: two methods for students of two sizes. It takes a minute or two on two cores."""

SETTINGS = [
    {"stage": "student", "weak": "chess-60k", "strong": strong, "method": method, "early_stopping": "none"}
    for strong in ("chess-121k", "chess-222k")
    for method in ("baseline", "confidence")
]
