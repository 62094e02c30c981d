"""No valid file is refused: the other side of every check in front of llama.cpp.

tests/convert/test_parity.py loads each family's file and compares what it computes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mofa_gguf.convert import convert
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer import build
from mofa_gguf.convert.tokenizer.judgement import Choice
from mofa_gguf.convert.tokenizer.sources import TokenizerSource
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files import vetting
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME
from mofa_gguf.engine.files.vetting import vet
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import GenerationRequest
from mofa_gguf.engine.requests.sampling import SamplingOptions
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama
from tools.gguf_parts import Parts, take_apart

DATA = Path(__file__).resolve().parents[2] / "data"
CHECKPOINTS = sorted(path.parent for path in DATA.glob("*/*/config.json"))
OPTIONS = EngineOptions(n_ctx=64, n_threads=1, n_threads_batch=1)
# Whole numbers for tables, and doubles: no model has weights of them.
TYPES = sorted(set(TYPES_BY_NAME) - {"I8", "I16", "I32", "I64", "F64"})
TOKENIZER = "tokenizer."


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vetting, "_passed", type(vetting._passed)())


@pytest.fixture(scope="module", autouse=True)
def each_tokenizer_is_measured_once() -> Iterator[None]:
    """Finding a pre-tokenizer is most of a conversion, and nearly all fixtures have the same."""
    found: dict[bytes, Choice] = {}
    choose = build.choose

    def remembered(source: TokenizerSource, metadata: Metadata) -> Choice:
        if source.document is None:
            return choose(source, metadata)
        key = hashlib.sha256(source.document.path.read_bytes()).digest()
        if key not in found:
            found[key] = choose(source, metadata)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "choose", remembered)
        yield


def test_there_are_checkpoints_of_every_kind() -> None:
    assert len(CHECKPOINTS) >= 109


@pytest.mark.parametrize(
    "checkpoint", CHECKPOINTS, ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_no_familys_file_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    convert(checkpoint, path, "F32", threads=1, verify=False)
    vet(read_header(path), OPTIONS)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A model whose rows are whole blocks of every type."""
    path = tmp_path_factory.mktemp("wide") / "wide.gguf"
    return take_apart(write_tiny_llama(path, TinyLlama(n_layers=1, n_embd=256, n_ff=256)))


@pytest.mark.parametrize("name", TYPES)
def test_no_quantization_is_refused(name: str, wide: Parts, tmp_path: Path) -> None:
    """All matrices in this type; that it runs shows that the file is one that should pass."""
    for tensor in wide.tensors:
        if len(tensor.shape) > 1:
            tensor.type = TYPES_BY_NAME[name].id
            tensor.data = bytes(TYPES_BY_NAME[name].row_bytes(tensor.shape[0] * tensor.shape[1]))
    engine = Engine.load(wide.write(tmp_path / "model.gguf"), OPTIONS)
    request = GenerationRequest([1, 2, 3], SamplingOptions(temperature=0), max_tokens=2)
    assert len(list(engine.submit(request))) > 0
    engine.close()


def with_vocabulary(model: Parts, vocabulary: Parts) -> Parts:
    """The model with another vocabulary, and rows for its tokens."""
    tokens = [pair for pair in vocabulary.pairs if pair.key.startswith(TOKENIZER.encode())]
    pairs = [pair for pair in model.pairs if not pair.key.startswith(TOKENIZER.encode())]
    mixed = Parts([*pairs, *tokens], model.tensors)
    mixed.drop("llama.vocab_size")
    q4, n_tokens = TYPES_BY_NAME["Q4_0"], len(vocabulary.pair(f"{TOKENIZER}ggml.tokens").value)
    for name in ("token_embd.weight", "output.weight"):
        rows = mixed.tensor(name)
        rows.shape, rows.type = [rows.shape[0], n_tokens], q4.id
        rows.data = bytes(q4.row_bytes(rows.shape[0] * n_tokens))
    return mixed


def test_no_real_vocabulary_is_refused(shared_data: Path, tmp_path: Path) -> None:
    tiny = write_tiny_llama(tmp_path / "tiny.gguf", TinyLlama(n_layers=1))
    paths = sorted((shared_data / "vocab").glob("*.gguf"))
    assert len(paths) >= 6
    for path in paths:
        mixed = with_vocabulary(take_apart(tiny), take_apart(path))
        vet(read_header(mixed.write(tmp_path / "model.gguf")), OPTIONS)


def test_a_vocabulary_with_a_row_too_few_would_be_refused(tmp_path: Path) -> None:
    """What the tests above rely on: that these checks look."""
    tiny = take_apart(write_tiny_llama(tmp_path / "tiny.gguf"))
    mixed = with_vocabulary(tiny, take_apart(tmp_path / "tiny.gguf"))
    rows = mixed.tensor("token_embd.weight")
    rows.shape[1] -= 1
    rows.refill()
    with pytest.raises(ModelFileError, match="259 tokens with 258 rows"):
        vet(read_header(mixed.write(tmp_path / "model.gguf")), OPTIONS)
