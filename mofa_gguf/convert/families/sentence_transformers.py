"""What sentence-transformers' files in a checkpoint's folder say about a text's vector.

modules.json lists what happens after the model: pooling (``1_Pooling``), matrices (``2_Dense``),
length 1. https://sbert.net/docs/sentence_transformer/usage/custom_models.html
"""

from __future__ import annotations

from typing import NamedTuple

from mofa_gguf.convert.checkpoint import Checkpoint, inside
from mofa_gguf.convert.config import Config, read_json
from mofa_gguf.convert.errors import CheckpointError
from mofa_gguf.convert.metadata import Metadata

# llama.h, enum llama_pooling_type; sentence-transformers' names, old flags and new values.
_POOLING = {
    "mean": ("pooling_mode_mean_tokens", 1),
    "cls": ("pooling_mode_cls_token", 2),
    "lasttoken": ("pooling_mode_lasttoken", 3),
}
_NO_CHANGE = ("Transformer", "Normalize")


class SentenceTransformer(NamedTuple):
    """How vectors are made; None and nothing where the folder does not say it."""

    pooling_type: int | None
    max_length: int | None
    dense_folders: tuple[str, ...]

    def write(self, metadata: Metadata, architecture: str) -> None:
        """Set the keys for pooling and for the length that texts are cut to."""
        if self.pooling_type is not None:
            metadata.uint32(f"{architecture}.pooling_type", self.pooling_type)
        if self.max_length is not None:
            # Not a key of llama.cpp: sentence-transformers cuts texts here, below the context.
            metadata.uint32("mofa_gguf.max_sequence_length", self.max_length)


def read_sentence_transformer(
    checkpoint: Checkpoint, *, takes_dense: bool = False
) -> SentenceTransformer:
    """Read the folder's files.

    Raises CheckpointError where they are broken, and for modules that llama.cpp cannot apply:
    ``takes_dense`` says whether it can apply matrices to the model's vectors.
    """
    folder, dense = _folders(checkpoint, takes_dense=takes_dense)
    pooling_type = None
    if folder is not None:
        settings = checkpoint.optional_json(folder, "config.json")
        if settings is None:
            raise CheckpointError(checkpoint.folder, f"{folder}/config.json is missing")
        pooling_type = _pooling_type(settings)
    limits = checkpoint.optional_json("sentence_bert_config.json")
    has_limit = limits is not None and "max_seq_length" in limits
    max_length = limits.integer("max_seq_length") if limits is not None and has_limit else None
    return SentenceTransformer(pooling_type, max_length, dense)


def _folders(checkpoint: Checkpoint, *, takes_dense: bool) -> tuple[str | None, tuple[str, ...]]:
    """Where modules.json keeps the pooling's settings, and the matrices."""
    path = inside(checkpoint.folder, "modules.json")
    if not path.exists():
        return None, ()
    modules = read_json(path)
    if not isinstance(modules, list):
        raise CheckpointError(path, "is no list of modules")
    pooling: str | None = None
    dense: list[str] = []
    for module in modules:
        section = Config(module if isinstance(module, dict) else {}, path)
        kind = section.string("type", default="").rpartition(".")[2]
        if kind == "Pooling":
            pooling = section.string("path", default="1_Pooling")
        elif kind == "Dense" and takes_dense:
            dense.append(section.string("path", default="2_Dense"))
        elif kind not in _NO_CHANGE:
            raise CheckpointError(
                path, f"has a module {kind!r:.40}, which llama.cpp cannot apply to this model"
            )
    return pooling, tuple(dense)


def _pooling_type(settings: Config) -> int:
    """The one way in which vectors are pooled.

    Those of several flags sentence-transformers puts one behind the other, which llama.cpp cannot.
    """
    flags = {flag: name for name, (flag, _) in _POOLING.items()}
    found = settings.string("pooling_mode", default="")
    if not found:
        names = [name for name in settings.values if name.startswith("pooling_mode_")]
        chosen = [name for name in names if settings.boolean(name, default=False)]
        found = flags.get(chosen[0], "") if len(chosen) == 1 else ""
    if found not in _POOLING:
        raise CheckpointError(
            settings.path, f"the pooling must be one of {', '.join(_POOLING)}, by itself"
        )
    return _POOLING[found][1]
