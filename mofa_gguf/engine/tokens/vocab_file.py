"""A vocabulary straight from a GGUF file, without the weights behind it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.files.vocabulary import check_vocabulary
from mofa_gguf.engine.native import apart, llama, take_errors
from mofa_gguf.engine.tokens.vocab import Vocab


class VocabFile:
    """The vocabulary of a GGUF file, loaded without its weights. Use as a context manager.

    With ``natively``, what the file holds beside llama.cpp's vocabulary is not looked at.
    Raises ModelFileError when the file is damaged or llama.cpp refuses it.
    """

    def __init__(self, path: Path | str, *, natively: bool = False) -> None:
        library = llama()
        header = read_header(path)
        check_vocabulary(header)
        metadata = {} if natively else header.metadata
        params = library.llama_model_default_params()
        params.vocab_only = True

        def read() -> tuple[Any, list[str]]:
            take_errors()
            return library.llama_model_load_from_file(os.fsencode(path), params), take_errors()

        # Ctrl-C would be lost in llama.cpp's log, which is Python.
        self._model, errors = apart(read, discard=_free)
        if not self._model:
            reason = "; ".join(errors) or "no reason given"
            raise ModelFileError(path, f"llama.cpp cannot read its vocabulary ({reason})")
        pointer = library.llama_model_get_vocab(self._model)
        self.vocab = Vocab(pointer, owner=self, metadata=metadata, path=path)

    def close(self) -> None:
        """Free the vocabulary, which raises VocabClosed when used again; may be called twice."""
        if self._model:
            self.vocab.close()
            llama().llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> VocabFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _free(found: tuple[Any, list[str]]) -> None:
    if found[0]:
        llama().llama_model_free(found[0])
