"""Files that are no model for this llama.cpp: each gets an answer that says what it is."""

from __future__ import annotations

import copy
from pathlib import Path

import gguf
import numpy as np
import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import InvalidOption, ModelFileError, UnsupportedModel
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.files.tensor_types import REMOVED_TYPES, TYPES_BY_ID
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import GenerationRequest
from tests.support.tiny_gguf import write_tiny_llama
from tests.support.tiny_vocab import write_vocab
from tools.gguf_parts import ARRAY, STRING, Parts, take_apart

OPTIONS = EngineOptions(n_ctx=64, n_threads=1)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return take_apart(write_tiny_llama(tmp_path_factory.mktemp("sound") / "tiny.gguf"))


@pytest.fixture
def parts(sound: Parts) -> Parts:
    return copy.deepcopy(sound)


def refusal(path: Path) -> ModelFileError:
    """The error of loading the file: always a line."""
    with pytest.raises(ModelFileError) as caught:
        Engine.load(path, OPTIONS)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("magic", "name"), [(b"lmgg", "GGML"), (b"fmgg", "GGMF"), (b"tjgg", "GGJT"), (b"algg", "GGLA")]
)
def test_formats_of_before_gguf_are_named(magic: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / "old.bin"
    path.write_bytes(magic + bytes(100))
    assert f"format of before GGUF ({name})" in refusal(path).problem


def test_the_first_version_of_gguf_is_named(parts: Parts, tmp_path: Path) -> None:
    parts.version = 1
    assert "has GGUF version 1" in refusal(parts.write(tmp_path / "m.gguf")).problem


def test_the_second_version_of_gguf_is_loaded(parts: Parts, tmp_path: Path) -> None:
    parts.version = 2
    Engine.load(parts.write(tmp_path / "m.gguf"), OPTIONS).close()


def test_a_version_of_the_future_is_named(parts: Parts, tmp_path: Path) -> None:
    parts.version = 4
    assert "has GGUF version 4; versions 2 and 3" in refusal(parts.write(tmp_path / "m")).problem


def test_a_file_of_the_other_byte_order_is_named(parts: Parts, tmp_path: Path) -> None:
    parts.version = 3 << 24
    assert "is a big-endian GGUF file" in refusal(parts.write(tmp_path / "m.gguf")).problem


@pytest.mark.parametrize("number", sorted(REMOVED_TYPES))
def test_quantizations_that_were_given_up_are_named(
    number: int, parts: Parts, tmp_path: Path
) -> None:
    assert number not in TYPES_BY_ID
    parts.tensor("blk.0.ffn_up.weight").type = number
    problem = refusal(parts.write(tmp_path / "m.gguf")).problem
    assert f"as {REMOVED_TYPES[number]}, a format that llama.cpp has given up" in problem


def test_a_quantization_of_the_future_asks_for_a_newer_llama_cpp(
    parts: Parts, tmp_path: Path
) -> None:
    parts.tensor("blk.0.ffn_up.weight").type = 99
    problem = refusal(parts.write(tmp_path / "m.gguf")).problem
    assert "type number 99" in problem
    assert "needs a newer one (pip install -U llama-cpp-python)" in problem


def test_a_pre_tokenizer_of_the_future_is_named(parts: Parts, tmp_path: Path) -> None:
    parts.set("tokenizer.ggml.pre", STRING, b"newest")
    assert "unknown pre-tokenizer type: 'newest'" in refusal(parts.write(tmp_path / "m")).problem


KINDS = {
    "adapter": "is a LoRA adapter, not a model",
    "mmproj": "reads images or sound (mmproj)",
    "imatrix": "holds an importance matrix",
    "dataset": "holds a data set",
    "controlvector": "is a control vector",
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_other_kinds_of_file_are_told_apart(kind: str, parts: Parts, tmp_path: Path) -> None:
    parts.set("general.type", STRING, kind.encode())
    error = refusal(parts.write(tmp_path / "m.gguf"))
    assert isinstance(error, UnsupportedModel)
    assert KINDS[kind] in error.problem


ARCHITECTURES = {
    "clip": "reads images or sound (mmproj)",
    "t5": "is an encoder-decoder model (t5)",
    "wavtokenizer-dec": "turns sound tokens into sound",
    "eagle3": "is a draft model (eagle3)",
    "flux": "makes images or films",
    "whisper": "recognises speech",
}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_architectures_that_are_no_language_models_are_told_apart(
    name: str, parts: Parts, tmp_path: Path
) -> None:
    parts.set("general.architecture", STRING, name.encode())
    error = refusal(parts.write(tmp_path / "m.gguf"))
    assert isinstance(error, UnsupportedModel)
    assert error.architecture == name
    assert ARCHITECTURES[name] in error.problem


def test_an_importance_matrix_without_a_type_is_one_by_its_keys(
    parts: Parts, tmp_path: Path
) -> None:
    parts.drop("general.type")
    parts.set("imatrix.datasets", ARRAY, [b"calibration.txt"], STRING)
    assert KINDS["imatrix"] in refusal(parts.write(tmp_path / "m.gguf")).problem


def test_a_lora_adapter_as_gguf_py_writes_it_is_one(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "lora.gguf", "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.zeros((4, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert KINDS["adapter"] in refusal(tmp_path / "lora.gguf").problem


def test_a_vocabulary_alone_is_one(tmp_path: Path) -> None:
    path = write_vocab(tmp_path / "vocab.gguf")
    assert refusal(path).problem == "holds a vocabulary but no weights"


def test_each_real_vocabulary_is_read_and_is_one(shared_data: Path) -> None:
    from mofa_gguf.engine.files.vocabulary import check_vocabulary

    paths = sorted((shared_data / "vocab").glob("*.gguf"))
    assert len(paths) >= 6
    for path in paths:
        check_vocabulary(read_header(path))
        assert refusal(path).problem == "holds a vocabulary but no weights"


def test_a_chat_model_may_embed(parts: Parts, tmp_path: Path) -> None:
    engine = Engine.load(parts.write(tmp_path / "m.gguf"), OPTIONS)
    (vector,) = engine.embed([[1, 2, 3]]).result()
    assert len(vector) == 64
    assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-4)
    engine.close()


def test_an_embedding_model_cannot_chat(tmp_path: Path) -> None:
    from mofa_gguf.convert import convert

    source = Path(__file__).resolve().parents[2] / "data" / "parity" / "nomic-bert"
    convert(source, tmp_path / "bert.gguf", "F32", threads=1, verify=False)
    engine = Engine.load(tmp_path / "bert.gguf", OPTIONS)
    with pytest.raises(InvalidOption, match="is made for embedding: it cannot generate"):
        engine.submit(GenerationRequest([1]))
    engine.close()
