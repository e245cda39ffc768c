"""Concept saliency (Figure 4): linear probes for the right answer in the strong model, before and after it is trained.

It is trained on weak labels and, as controls, on random labels and on ground truth.
"""

STRONGS = ["chess-121k", "chess-222k", "chess-426k"]
METHODS = ["baseline", "confidence", "random_labels", "oracle"]

SETTINGS = [
    {"stage": "probe", "weak": "chess-60k", "strong": strong, "method": method, "early_stopping": "none"}
    for strong in STRONGS
    for method in METHODS
]
