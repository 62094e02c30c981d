"""A GGUF file that holds a vocabulary and nothing else, for llama.cpp to load for a moment."""

from __future__ import annotations

from pathlib import Path

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.gguf_format import header_bytes
from mofa_gguf.convert.metadata import Metadata


def write_vocabulary_file(path: Path, vocabulary: Metadata, *, pre_tokenizer: str) -> None:
    """Write ``vocabulary`` with this ``tokenizer.ggml.pre`` as a file without tensors.

    Raises TokenizerError when the temporary file cannot be written.
    """
    metadata = Metadata()
    # Any architecture will do: llama.cpp stops before it looks for the model's numbers.
    metadata.string("general.architecture", "llama")
    metadata.update(vocabulary)
    metadata.string("tokenizer.ggml.pre", pre_tokenizer)
    try:
        path.write_bytes(header_bytes(metadata, ()))
    except OSError as error:
        raise TokenizerError(
            f"{path}: a temporary file for the vocabulary cannot be written ({error.strerror})"
        ) from error
