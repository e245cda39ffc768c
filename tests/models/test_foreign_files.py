"""Model files that others made: whatever they declare, they are refused quickly and in one sentence."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import test_hub
from tests.models.test_hub import change, find, refused
from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.models import _gguf_header

STRING, ARRAY, FLOAT = 8, 9, 6


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return test_hub.write(test_hub.made("llama"), tmp_path / "llama")


@pytest.fixture(autouse=True)
def quick() -> Any:
    """No file makes a test wait."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 20


# --- GGUF -------------------------------------------------------------------------------------------------------------


def header(entries: int, *metadata: bytes, tensors: int = 0, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return struct.pack("<4sIQQ", magic, version, tensors, entries) + b"".join(metadata)


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def entry(kind: int, value: bytes) -> bytes:
    return text(b"general.name") + struct.pack("<I", kind) + value


def padded(content: bytes) -> bytes:
    return content.ljust(68, b"\0")


DECLARED = {
    "2^40 entries": header(2**40),
    "2^40 tensors": header(0, tensors=2**40),
    "2^40 entries, of which one is there": header(2**40, entry(FLOAT, b"\0\0\0\0")),
    "a text of 2^60 bytes": header(1, entry(STRING, struct.pack("<Q", 2**60))),
    "an array of 2^40 numbers": header(1, entry(ARRAY, struct.pack("<IQ", FLOAT, 2**40))),
    "an array of 2^40 texts": header(1, entry(ARRAY, struct.pack("<IQ", STRING, 2**40))),
    "an array of arrays": header(1, entry(ARRAY, struct.pack("<IQ", ARRAY, 2**40))),
    "a value of an unknown type": header(1, entry(77, b"\0\0\0\0")),
    "another version": header(0, version=1),
    "another file": header(0, magic=b"GGML"),
}
"""Files of 68 bytes or a few more, by what they declare."""


@pytest.mark.parametrize("name", DECLARED)
def test_a_gguf_file_that_declares_more_than_it_holds_is_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    file = tmp_path / "small.gguf"
    file.write_bytes(padded(DECLARED[name]))
    assert refused(file) == f"--weak must be a readable GGUF file, got {file}"


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=120), tensors=st.integers(0, 2**64 - 1), entries=st.integers(0, 2**64 - 1))
def test_the_header_of_any_bytes_is_passed_over_or_refused(
    content: bytes, tensors: int, entries: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.gguf"
    file.write_bytes(header(entries, content, tensors=tensors))
    try:
        _gguf_header.check(file, "weak", str(file))
    except ConfigError as error:
        assert str(error) == f"--weak must be a readable GGUF file, got {file}"
    else:
        assert 12 * entries <= len(content) and 32 * tensors <= file.stat().st_size


# --- config.json and the other files of a directory -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "beside.txt"])
def test_a_pipe_in_the_place_of_a_file_is_named_and_not_opened(name: str, checkpoint: Path) -> None:
    (checkpoint / name).unlink(missing_ok=True)
    os.mkfifo(checkpoint / name)
    assert refused(checkpoint) == (
        f"--weak must be a directory of regular files, got {checkpoint}, in which {name} is a pipe or a device"
    )


def test_a_link_to_a_device_is_no_regular_file(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    (checkpoint / "config.json").symlink_to("/dev/zero")
    assert "in which config.json is a pipe or a device" in refused(checkpoint)


CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "10^7 layers": ({"num_hidden_layers": 10**7}, "a model of at most 10,000 layers"),
    "no layers": ({"num_hidden_layers": -1}, "whose config.json gives the number of layers and the hidden size"),
    "a quantizer": ({"quantization_config": {"quant_method": "gptq"}}, "config.json names the quantizer 'gptq'"),
    "a nameless quantizer": ({"quantization_config": {}}, "config.json names the quantizer 'unknown'"),
    "a quantizer that is a text": ({"quantization_config": "mine"}, "config.json names the quantizer 'mine'"),
    "kernels of a repository": (
        {"attn_implementation": "someone/kernels"},
        "config.json names attn_implementation 'someone/kernels'",
    ),
    "kernels of a revision": (
        {"_attn_implementation": "someone/kernels@main:flash"},
        "config.json names _attn_implementation 'someone/kernels@main:flash'",
    ),
    "a table of kernels": ({"kernel_config": {"RMSNorm": "someone/kernels"}}, "config.json has the field kernel_config"),
    "kernels by a switch": ({"use_kernels": True}, "config.json has the field use_kernels"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_asks_for_too_much_or_for_foreign_code_is_refused_by_name(name: str, checkpoint: Path) -> None:
    values, said = CONFIGS[name]
    change(checkpoint, **values)
    assert said in refused(checkpoint)


def test_sizes_that_the_weights_do_not_have_take_no_memory(checkpoint: Path) -> None:
    """A width of a million would take terabytes. The shapes are compared before memory is allocated."""
    change(checkpoint, intermediate_size=10**12)
    with pytest.raises(ConfigError, match=r"config\.json.*weight|cannot be read") as caught:
        models.load(find(checkpoint), pretrained=True)
    assert "\n" not in str(caught.value) and str(checkpoint) in str(caught.value)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd", "sub/model.safetensors"])
def test_an_index_that_names_a_file_outside_its_directory_is_refused(name: str, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": name}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refused(checkpoint).endswith(f"got {checkpoint}, which names {name!r}")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["model_type", "num_hidden_layers", "hidden_size", "vocab_size", "architectures", "is_encoder_decoder", "layer_types"]
)


@settings(max_examples=20, deadline=None)
@given(values=st.dictionaries(FIELDS, VALUES, max_size=4))
def test_any_config_is_taken_or_refused_in_one_sentence(
    values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.getbasetemp() / "any-config"
    directory.mkdir(exist_ok=True)
    for name in ("model.safetensors", "tokenizer.json"):
        (directory / name).write_text("{}")
    config = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 16} | values
    (directory / "config.json").write_text(json.dumps(config))
    try:
        find(directory)
    except ConfigError as error:
        assert str(error).startswith("--weak must be ") and "\n" not in str(error)
