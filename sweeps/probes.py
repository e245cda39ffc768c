"""Concept saliency (Figure 4): linear probes for the right answer, before and after training on weak labels, and on noise."""

STRONGS = ["chess-121k", "chess-222k", "chess-426k"]
METHODS = ["baseline", "confidence", "random_labels", "oracle"]

SETTINGS = [
    {"stage": "probe", "weak": "chess-60k", "strong": strong, "method": method, "early_stopping": "none"}
    for strong in STRONGS
    for method in METHODS
]
