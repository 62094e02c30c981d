"""General metadata: what the file is, where it comes from, how it was made.

Nothing here depends on the time or the machine: the same input gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from mofa_gguf import __version__
from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.metadata import Metadata, written_name
from mofa_gguf.convert.overrides import Overrides
from mofa_gguf.convert.plan import Plan
from mofa_gguf.convert.quantizations import Quantization

if TYPE_CHECKING:
    from mofa_gguf.convert.importance import Importance

QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (0.0, "K"))


# Where the name says Phi 3, llama.cpp looks these tokens up and fails without them
# (src/llama-vocab.cpp, the attributes set by the model's name).
_PHI3 = re.compile(r"(phi)-?3", re.IGNORECASE)
_PHI3_TOKENS = frozenset(("</s>", "<unk>", "<s>", "<|endoftext|>"))


def general_metadata(checkpoint: Checkpoint, plan: Plan, vocabulary: Metadata) -> Metadata:
    """The ``general.*`` keys and ours, ``mofa_gguf.*``; ``vocabulary`` are the tokenizer's."""
    name = written_name(checkpoint.folder.resolve().name)
    metadata = Metadata()
    metadata.string("general.type", "model")
    metadata.string("general.name", model_name(name, vocabulary))
    metadata.string("general.size_label", size_label(plan.n_parameters))
    metadata.uint32("general.file_type", plan.quantization.file_type)
    metadata.uint32("general.quantization_version", QUANTIZATION_VERSION)
    metadata.string("mofa_gguf.version", __version__)
    metadata.string("mofa_gguf.source", name)
    metadata.string("mofa_gguf.source_sha256", checkpoint.fingerprint())
    return metadata


def recipe_metadata(
    quantization: Quantization, overrides: Overrides, importance: Importance | None
) -> Metadata:
    """How the tensors' types were chosen, and what the importance matrix was."""
    metadata = Metadata()
    metadata.string("mofa_gguf.quantization", quantization.name)
    if str(overrides):
        metadata.string("mofa_gguf.overrides", str(overrides))
    if importance is not None:
        metadata.update(importance.metadata())
        metadata.string("mofa_gguf.imatrix_sha256", importance.fingerprint())
    return metadata


def model_name(name: str, vocabulary: Metadata) -> str:
    """``name``, spelled so that llama.cpp does not expect another vocabulary than it gets."""
    if not _PHI3.search(name):
        return name
    tokens = vocabulary.get("tokenizer.ggml.tokens")
    complete = tokens is not None and _PHI3_TOKENS.issubset(cast(Sequence[str], tokens.data))
    return name if complete else _PHI3.sub(r"\1 3", name)


def size_label(n_parameters: int) -> str:
    """ "22.6M", "494M", "7.24B": at least two digits (GGUF's naming convention)."""
    size, unit = next((size or 1e3, unit) for size, unit in _UNITS if n_parameters > size)
    scaled = n_parameters / size
    n_decimals = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{n_decimals}f}{unit}"
