"""A vocabulary read from a file without its weights."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.tokens.vocab_file import VocabFile


def test_it_tokenizes_as_the_model_does_and_may_be_closed_twice(tiny_model: Path) -> None:
    file = VocabFile(tiny_model)
    with file:
        tokens = file.vocab.tokenize("hello")
        assert file.vocab.detokenize(tokens).strip() == "hello"
    file.close()


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"no such format")
    with pytest.raises(ModelFileError, match=r"broken\.gguf"):
        VocabFile(path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names of any bytes")
def test_a_file_name_that_is_no_utf8_is_a_name_like_any_other(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.gguf")
    shutil.copyfile(tiny_model, path)
    with VocabFile(path) as file:
        assert file.vocab.n_tokens > 0
