"""A first look at a grid: two methods in two sizes, a minute or two on two cores."""

SETTINGS = [
    {"stage": "student", "weak": "chess-60k", "strong": strong, "method": method, "early_stopping": "none"}
    for strong in ("chess-121k", "chess-222k")
    for method in ("baseline", "confidence")
]
