"""Check that models fit their tokenizers, heads and options, before anything is trained.

A model that cannot read its rows is refused before its supervisor, which may train for hours, is made. The check reads all
examples with the model's tokenizer, and runs the model once, on the longest example.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError, ModelError, first_line, memory_error
from w2s_mlflow.models import ModelSpec
from w2s_mlflow.pipeline.context import Context
from w2s_mlflow.records import Example

_passed: set[tuple[Any, ...]] = set()
"""Models that this process has checked: specs, with the options and the data of the check."""


@contextlib.contextmanager
def required(context: Context[Any]) -> Iterator[None]:
    """Context manager within which no run is made before the models of `context` have passed the check.

    A stage uses it while it makes its inputs. If all results exist already, no model is loaded.
    """
    from w2s_mlflow.tracking import session

    check = functools.partial(check_models, context)
    with session.changed(before_making=(*session.current().before_making, check)):
        yield


def check_models(context: Context[Any]) -> None:
    """Check each model of a stage that trains or uses heads, once per process.

    Raises:
        ModelError: a model cannot be loaded, or cannot read the examples with these options.
    """
    options = vars(context.options)
    if options.get("head") is None:
        return
    names = ("head", "pooling", "max_length", "lora", "freeze", "gradient_checkpointing")
    settings = {name: options.get(name) for name in names}
    for spec in context.models.values():
        key = (spec, *settings.values(), context.split.digest)
        if key not in _passed:
            _check(spec, settings, context)
            _passed.add(key)


def _check(spec: ModelSpec, settings: dict[str, Any], context: Context[Any]) -> None:
    import torch

    examples = [example for part in context.split.parts().values() for example in part]
    try:
        with torch.random.fork_rng(devices=[]):
            _run(spec, settings, context.task.classes, examples)
    except ModelError:
        raise
    except ConfigError as error:
        raise ModelError(str(error)) from error
    except Exception as error:  # the code of a foreign model may raise anything
        if out_of_memory := memory_error(error, f"the model {spec.name}, on the longest example,"):
            raise out_of_memory from error
        raise ModelError(
            f"the model {spec.name} cannot be used, because it fails on the longest example: {first_line(error)}"
        ) from error


def _run(spec: ModelSpec, settings: dict[str, Any], classes: int, examples: list[Example]) -> None:
    import torch

    from w2s_mlflow.modeling import heads
    from w2s_mlflow.training import trainable

    model, tokenizer = models.load(spec, pretrained=True)
    head = heads.build(settings["head"], model, tokenizer, classes, settings["pooling"], settings["max_length"]).eval()
    data = head.encode(examples)
    longest = data.lengths_N().argsort()[-1:]
    options = {"lora": settings["lora"], "freeze": settings["freeze"]}
    checkpointing = bool(settings["gradient_checkpointing"])
    with trainable.learning(head, gradient_checkpointing=checkpointing, **options), torch.no_grad():
        head(data.batch(longest))
