"""A vocabulary read from a file without its weights."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mofa_gguf.engine.errors import ModelFileError, VocabClosed
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile


def test_it_tokenizes_as_the_model_does_and_may_be_closed_twice(tiny_model: Path) -> None:
    file = VocabFile(tiny_model)
    with file:
        tokens = file.vocab.tokenize("hello")
        assert file.vocab.detokenize(tokens).strip() == "hello"
    file.close()


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda vocab: vocab.tokenize("hello"), id="tokenize"),
        pytest.param(
            lambda vocab: vocab.tokenize("hello", parse_special=True), id="tokenize a prompt"
        ),
        pytest.param(lambda vocab: vocab.pair("one", "two"), id="pair"),
        pytest.param(lambda vocab: vocab.piece(5), id="piece"),
        pytest.param(lambda vocab: vocab.detokenize([5]), id="detokenize"),
        pytest.param(lambda vocab: vocab.text(5), id="text"),
        pytest.param(lambda vocab: vocab.is_eog(5), id="is_eog"),
        pytest.param(lambda vocab: vocab.is_control(5), id="is_control"),
        pytest.param(lambda vocab: vocab.control_texts(), id="control_texts"),
        pytest.param(lambda vocab: vocab.tag_texts(), id="tag_texts"),
        pytest.param(lambda vocab: vocab.suppressed, id="suppressed"),
        pytest.param(lambda vocab: vocab.bos, id="bos"),
        pytest.param(lambda vocab: vocab.eos, id="eos"),
        pytest.param(lambda vocab: vocab.sep, id="sep"),
        pytest.param(lambda vocab: vocab.add_bos, id="add_bos"),
        pytest.param(lambda vocab: vocab.add_eos, id="add_eos"),
        pytest.param(lambda vocab: vocab.pointer, id="pointer"),
    ],
)
def test_a_vocabulary_whose_file_was_closed_says_so(
    tiny_model: Path, use: Callable[[Vocab], object]
) -> None:
    with VocabFile(tiny_model) as file:
        vocab = file.vocab
        use(vocab)  # what is remembered from before does not answer afterwards
    with pytest.raises(VocabClosed, match="was closed") as caught:
        use(vocab)
    assert caught.value.path == tiny_model


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


class PressCtrlC(logging.Handler):
    """Interrupts the process when llama.cpp says its first line."""

    pressed = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_while_a_vocabulary_is_read_is_not_lost_in_llama_cpps_log(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama()
    log = logging.getLogger("mofa_gguf.llama_cpp")
    handler = PressCtrlC()
    monkeypatch.setattr(log, "handlers", [handler])
    monkeypatch.setattr(log, "level", logging.DEBUG)
    log.manager._clear_cache()  # type: ignore[attr-defined]
    try:
        with pytest.raises(KeyboardInterrupt):
            VocabFile(tiny_model)
    finally:
        log.manager._clear_cache()  # type: ignore[attr-defined]
    assert handler.pressed
