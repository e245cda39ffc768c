"""Fitted heads as MLflow logged models. They are stored as models-from-code with safetensors weights and verified by digests.

Load a model with `mlflow.pyfunc.load_model("models:/<id>")` or `mlflow models serve -m models:/<id> --env-manager local`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import temporary
from w2s_mlflow.modeling import heads, saved_heads
from w2s_mlflow.modeling.heads import Head
from w2s_mlflow.records import canonical_json
from w2s_mlflow.tracking.backend.server import client, sentence
from w2s_mlflow.tracking.results import ARTIFACTS, CorruptArtifactError, digest_once, digests_of

LOG = logging.getLogger("w2s_mlflow")
SCRIPT = Path(__file__).with_name("pyfunc_model.py")
HEAD = "head"
"""Name of the artifact directory that holds the files of the head."""
NEEDS = ("mlflow", "numpy", "pandas", "safetensors", "tokenizers", "torch", "transformers")
"""Packages that the pyfunc script needs besides w2s_mlflow. A logged model requires the versions that were
installed when it was logged."""
ORIGIN = ("mlflow.user", "mlflow.source.")
"""Prefixes of the tags that are copied from a run to its model. These tags name the user and the source code."""


def log(run_id: str, head: Head, name: str = "model") -> str:
    """Log a fitted head as a model output of a run, with the run's parameters, and return the model's id.

    The model's status is PENDING until its last file is written, then READY; after an error it is FAILED.
    """
    run = client().get_run(run_id)
    model = _create(run, name)
    try:
        with temporary.directory() as directory:
            _write(model, head, Path(directory))
            _upload(model, Path(directory, "model"))
        client().log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    except BaseException:
        with contextlib.suppress(Exception):  # if the server does not answer, the model stays PENDING
            client().finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    client().finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def load(model_id: str) -> Head:
    """Load the head of a logged model, in float32 on the CPU. It predicts exactly the same probabilities as the original head.

    Raises:
        CorruptArtifactError: a file of the model is missing or does not match its digest.
        ConfigError: the model does not exist, or it was never finished.
    """
    with _verified_files(model_id) as directory:
        return saved_heads.load(directory / "artifacts" / HEAD)


def verify(model_id: str) -> None:
    """Verify that every file of a logged model exists and matches its recorded digest.

    Raises:
        CorruptArtifactError: a file, named in the message, is missing or does not match its digest.
        ConfigError: the model does not exist, or it was never finished.
    """
    with _verified_files(model_id):
        pass


def is_complete(model_id: str) -> bool:
    """Return whether the model is complete and undamaged; if not, log a warning with the reason."""
    try:
        verify(model_id)
    except ConfigError as error:
        LOG.warning("%s; the model will be trained again", error)
        return False
    return True


# --- writing ----------------------------------------------------------------------------------------------------------


def _create(run: Run, name: str) -> LoggedModel:
    origin = {key: value for key, value in run.data.tags.items() if key.startswith(ORIGIN)}
    return client().create_logged_model(
        run.info.experiment_id, name, source_run_id=run.info.run_id, tags=origin, params=run.data.params
    )


def _write(model: LoggedModel, head: Head, directory: Path) -> None:
    """Write the head to `directory / HEAD`, and the MLflow model that contains the head to `directory / "model"`."""
    saved_heads.save(head, directory / HEAD)
    described = Model(
        artifact_path=model.artifact_location,
        run_id=model.source_run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")  # hide MLflow's advice on data types
        mlflow.pyfunc.save_model(
            path=directory / "model",
            python_model=SCRIPT,
            artifacts={HEAD: str(directory / HEAD)},
            signature=_signature(head),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in NEEDS],
            mlflow_model=described,
        )


def _signature(head: Head) -> ModelSignature:
    texts = Schema([ColSpec(Array(DataType.string), name) for name in ("segments", "candidates")])
    probabilities_NC = TensorSpec(np.dtype(np.float32), (-1, heads.classes_of(head) or -1))
    return ModelSignature(texts, Schema([probabilities_NC]))


def _upload(model: LoggedModel, directory: Path) -> None:
    client().log_model_artifacts(model.model_id, str(directory))
    client().set_logged_model_tags(model.model_id, {ARTIFACTS: canonical_json(digests_of(directory))})


# --- reading ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _verified_files(model_id: str) -> Iterator[Path]:
    """Yield the local directory of a logged model after verifying all its files."""
    model = _ready_model(model_id)
    with temporary.directory() as scratch:
        directory = _download(model, scratch)
        for name, expected in _digests(model).items():
            file = directory / name
            if not file.is_file():
                raise CorruptArtifactError(f"the logged model {model_id} is missing its file {name}")
            if digest_once(file) != expected:
                raise CorruptArtifactError(
                    f"the logged model {model_id} has a damaged file {name}: its digest differs from the recorded one"
                )
        yield directory


def _ready_model(model_id: str) -> LoggedModel:
    try:
        model = client().get_logged_model(model_id)
    except MlflowException as error:
        raise ConfigError(f"the logged model {model_id} cannot be read: {sentence(error)}") from error
    if model.status != LoggedModelStatus.READY:
        raise ConfigError(f"the logged model {model_id} is {model.status}, not READY: its upload was never finished")
    return model


def _digests(model: LoggedModel) -> dict[str, str]:
    digests: dict[str, str] = json.loads(model.tags[ARTIFACTS])
    return digests


def _download(model: LoggedModel, scratch: str) -> Path:
    """Return the directory of the model's files: the original if it is local, else a copy downloaded to `scratch`."""
    repository = get_artifact_repository(model.artifact_location)
    destination = None if isinstance(repository, LocalArtifactRepository) else scratch
    try:
        return Path(str(repository.download_artifacts("", destination)))  # type: ignore[no-untyped-call]
    except (MlflowException, OSError) as error:
        location = model.artifact_location
        raise CorruptArtifactError(
            f"the files of the logged model {model.model_id} in {location} cannot be read: {sentence(error)}"
        ) from error
