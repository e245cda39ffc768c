"""The default experiment: does a strong model become better than the weak supervisor whose labels it is finetuned on?

It holds what that claim needs: a supervisor, students of two sizes with two methods, and the answers that need no weak labels,
which a student must beat as well. `self_training` trains the strong model on its own zero-shot answers; `zero_shot` and
`best_prompt` do not train it; `searched_rule` is the best rule over cheap features. `matched_noise` trains it on labels that
are as often right and as soft as the weak labels, but wrong at random rows. Supervisors and ceilings are trained as well.
Students are trained for both epochs, without early stopping. sweeps/referee.py has further controls.
"""

WEAK = "chess-60k"
STRONGS = ["chess-222k", "chess-426k"]
CLAIM = {
    "task": "chess",
    "weak": WEAK,
    "strong": STRONGS,
    "method": "baseline",
    "above": ["supervisor", "self_training", "label_free"],
}
METHODS = ["baseline", "confidence", "matched_noise", "self_training", "zero_shot", "best_prompt"]

SETTINGS = [
    {"stage": "rule", "rule": "searched_rule"},
    *(
        {"stage": "student", "weak": WEAK, "strong": strong, "method": method, "early_stopping": "none"}
        for strong in STRONGS
        for method in METHODS
    ),
]
