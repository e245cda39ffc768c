"""The default experiment: one supervisor, students of three sizes, two methods, and controls, on two chess tasks.

Controls: the strong model without finetuning, a student from random weights, a student of its supervisor's size, the paper's
linear head, students of random labels with the supervisor's error rate, and the one-line rules of the task. The supervisor and
the ceiling of each student are trained as well; if several students have the same, it is trained once. Students are trained for
both epochs, without early stopping.
"""

WEAK = "chess-60k"
STRONGS = ["chess-121k", "chess-222k", "chess-426k"]
LARGEST = STRONGS[-1]
RULES = ["most_valuable_capture", "least_valuable_piece", "most_gained", "gain_beside_king", "first_check", "random"]

LADDER = [{"strong": strong, "method": method} for strong in STRONGS for method in ("baseline", "confidence", "zero_shot")]
CONTROLS = [{"strong": LARGEST, "method": "random_weights"}, {"strong": WEAK}, {"strong": LARGEST, "head": "classification"}]
CONTROLS += [{"strong": strong, "method": "random_labels"} for strong in STRONGS[1:]]
PREFERENCE = [{"task": "chess_preference", "strong": LARGEST, "method": method} for method in ("baseline", "confidence")]

SETTINGS = [
    *({"stage": "rule", "rule": rule} for rule in RULES),
    *({"stage": "student", "weak": WEAK, "early_stopping": "none"} | setting for setting in LADDER + CONTROLS + PREFERENCE),
]
