"""What a GGUF file is, where it is no language model: each kind with where it belongs instead."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mofa_gguf.engine.errors import ModelFileError, UnsupportedModel
from mofa_gguf.engine.files.header import GGUFHeader

# general.type, as llama.cpp's tools and converters write it (gguf-py, GGUFType).
_BY_TYPE: Mapping[str, str] = MappingProxyType(
    {
        "adapter": "is a LoRA adapter, not a model; give the model it was made for, and this file "
        "in lora",
        "mmproj": "is the part of a multimodal model that reads images or sound (mmproj), not the "
        "language model; give the file of that",
        "imatrix": "holds an importance matrix for quantizing, not a model; give it to `mofa-gguf "
        "quantize --imatrix`",
        "dataset": "holds a data set, not a model",
        "controlvector": "is a control vector, not a model",
    }
)
# general.architecture of files that are no language models.
_BY_ARCHITECTURE: Mapping[str, str] = MappingProxyType(
    {
        "clip": _BY_TYPE["mmproj"],
        "controlvector": _BY_TYPE["controlvector"],
        "imatrix": _BY_TYPE["imatrix"],
        "t5": "is an encoder-decoder model (t5), which cannot be run here; take a decoder, or an "
        "encoder to embed with",
        "wavtokenizer-dec": "turns sound tokens into sound (wavtokenizer-dec), which cannot be "
        "done here",
        "pockettts": "makes speech (pockettts), which cannot be done here",
        "qwen3tts": "makes speech (qwen3tts), which cannot be done here",
        "eagle3": "is a draft model (eagle3), which works only beside the model it was made for",
        "dflash": "is a draft model (dflash), which works only beside the model it was made for",
        "gemma4-assistant": "is a draft model (gemma4-assistant), which works only beside the "
        "model it was made for",
        **dict.fromkeys(
            ("flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "wan", "lumina2", "ltxv"),
            "makes images or films; it is no language model",
        ),
        "whisper": "recognises speech (whisper); it is no language model",
    }
)


def check_kind(header: GGUFHeader) -> None:
    """Raises UnsupportedModel or ModelFileError for a file that is no language model."""
    kind = header.metadata.get("general.type")
    architecture = header.architecture
    problem = _BY_TYPE.get(kind) if isinstance(kind, str) else None
    problem = problem or _BY_ARCHITECTURE.get(architecture)
    if problem is None and "imatrix.datasets" in header.metadata:
        problem = _BY_TYPE["imatrix"]
    if problem:
        raise UnsupportedModel(header.path, problem, architecture=architecture or None)
    if not architecture:
        raise ModelFileError(header.path, "names no architecture, so it is no language model")
    if not header.tensors:
        raise ModelFileError(header.path, "holds a vocabulary but no weights")
