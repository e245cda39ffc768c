"""The paper's whole grid: its 22 tasks (Table 1), chess puzzles and reward modelling, with two model families and every method.

It needs the data sets, the models and GPUs: look at `--plan` first. Within a family, every model supervises each larger one.
Chains consist of the models between the two (`--chain auto`, which the methods set).
"""

GLUE = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax"]
SUPERGLUE = ["cb", "copa", "multirc", "record", "wic", "wsc", "boolq"]
OTHERS = ["race", "scitail", "snli", "swag", "hellaswag"]
TASKS = [*GLUE, *SUPERGLUE, *OTHERS, "puzzles", "hh_rlhf"]

LADDERS = [
    ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"],
    ["pythia-160m", "pythia-410m", "pythia-1.4b", "pythia-2.8b"],
]
METHODS = ["baseline", "confidence", "generative"]
CHAINED = ["bootstrap", "full", "full-without-confidence", "full-without-generative"]
"""Methods that need a model with a size between those of the weak and the strong model."""

SETTINGS = [
    {"stage": "student", "task": task, "weak": weak, "strong": strong, "method": method}
    for task in TASKS
    for ladder in LADDERS
    for place, weak in enumerate(ladder)
    for further, strong in enumerate(ladder[place + 1 :])
    for method in METHODS + (CHAINED if further else [])
]
