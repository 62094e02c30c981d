"""Hyperparameters that make sense together; :mod:`~mofa_gguf.engine.files.bounds` has each alone.

llama.cpp takes what a file says and ends the process where that cannot be: its assertions in
``llama_model_base::load_hparams`` (src/llama-model.cpp), in the graphs of src/models and in ggml's
operators are the source of what is held here. What llama.cpp itself refuses without ending the
process (missing tensors, shapes that do not agree) is left to it.
"""

from __future__ import annotations

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files import known
from mofa_gguf.engine.files.bounds import Fail, check_bounds
from mofa_gguf.engine.files.header import GGUFHeader

_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_POOLINGS = range(-1, 5)  # enum llama_pooling_type


def check_hyperparameters(header: GGUFHeader) -> None:
    """Raises ModelFileError for values that llama.cpp cannot work with.

    An architecture that the format does not name passes: llama.cpp says best what it does not know.
    """
    if not _is_named(header.architecture):
        return

    def fail(problem: str) -> Exception:
        return ModelFileError(header.path, f"is damaged or no sound model: {problem}")

    check_bounds(header, fail)
    n_layers: int = header.hyperparameter("block_count")
    _check_layers(header, n_layers, fail)
    _check_experts(header, n_layers, fail)
    _check_heads(header, n_layers, fail)
    _check_rope(header, fail)
    _check_states(header, fail)


def _is_named(architecture: str) -> bool:
    if architecture in known.ARCHITECTURES or architecture in known.NEWER:
        return True
    # Not for the usual ones: importing it takes longer than all checks.
    from gguf.constants import MODEL_ARCH_NAMES

    return architecture in MODEL_ARCH_NAMES.values()


def _check_layers(header: GGUFHeader, n_layers: int, fail: Fail) -> None:
    extra = _whole(header, "nextn_predict_layers")
    if extra >= n_layers:
        raise fail(f"nextn_predict_layers is {extra} of {n_layers} layers")
    for name in ("leading_dense_block_count", "attention.shared_kv_layers"):
        if _whole(header, name) > n_layers:
            raise fail(f"{name} is {_whole(header, name)} of {n_layers} layers")
    width, out = (_whole(header, f"embedding_length{end}") for end in ("", "_out"))
    if out > width and header.architecture in known.ARCHITECTURES:
        raise fail(f"embedding_length_out is {out}, and embedding_length {width}")
    pooling = header.hyperparameter("pooling_type")
    if isinstance(pooling, int) and pooling not in _POOLINGS:
        raise fail(f"pooling_type is {pooling}, which llama.cpp does not know")


def _check_experts(header: GGUFHeader, n_layers: int, fail: Fail) -> None:
    n_experts = _whole(header, "expert_count")
    n_used = max(per_layer(header, "expert_used_count", n_layers), default=0)
    groups, used_groups = (_whole(header, f"expert_group_{w}") for w in ("count", "used_count"))
    if n_used > n_experts:
        raise fail(f"{n_used} experts are used of {n_experts}")
    if n_experts and not n_used:
        raise fail(f"none of {n_experts} experts are used")
    if groups and groups >= n_experts:
        raise fail(f"{n_experts} experts are in {groups} groups")
    if groups > 1 and (n_experts % groups or not 0 < used_groups < groups):
        raise fail(f"{used_groups} of {groups} groups of {n_experts} experts are used")


def _check_heads(header: GGUFHeader, n_layers: int, fail: Fail) -> None:
    heads = per_layer(header, "attention.head_count", n_layers)
    stated_kv = header.hyperparameter("attention.head_count_kv") is not None
    kv_heads = per_layer(header, "attention.head_count_kv", n_layers) if stated_kv else heads
    if not any(heads):
        if header.architecture not in known.RECURRENT:
            raise fail("it has no attention heads (attention.head_count)")
        return
    if header.architecture in known.MAMBA:
        raise fail(f"{header.architecture} has no attention, but attention.head_count")
    for n, n_kv in zip(heads, kv_heads, strict=True):
        if n_kv > n or (n_kv and n % n_kv):
            raise fail(f"{n} attention heads cannot share {n_kv} of keys and values")
    n_embd: int = header.hyperparameter("embedding_length")
    if heads[0] and n_embd % heads[0] and not _whole(header, "attention.key_length"):
        raise fail(f"embedding_length {n_embd} cannot be divided among {heads[0]} heads")
    if heads[0] > n_embd and not _whole(header, "attention.key_length"):
        raise fail(f"{heads[0]} heads are more than embedding_length {n_embd}")
    key, value = head_lengths(header, heads[0])
    if key != value and header.architecture in known.HEADS_OF_ONE_LENGTH:
        raise fail(f"keys of {key} and values of {value}, which {header.architecture} cannot have")


def _check_rope(header: GGUFHeader, fail: Fail) -> None:
    scaling = header.hyperparameter("rope.scaling.type", "none")
    if scaling not in _ROPE_SCALINGS:
        raise fail(f"rope.scaling.type is {scaling!r}, not one of {', '.join(_ROPE_SCALINGS)}")
    heads = per_layer(header, "attention.head_count", 1)
    if not heads[0]:
        return
    key, _ = head_lengths(header, heads[0])
    rotated = header.hyperparameter("rope.dimension_count", key)
    architecture = header.architecture
    if architecture in known.ROTATES_ITS_HEADS_WHOLE and rotated != key:
        raise fail(f"rope.dimension_count is {rotated} with heads of {key}")
    # A rotation of no dimensions never ends in ggml.
    rotates = architecture in known.EVERY_LAYER_ROTATES
    for each in (rotated, header.hyperparameter("rope.dimension_count_swa", rotated)):
        if rotates and (not each or each % 2 or each > max(key, *_swa(header))):
            raise fail(f"rope.dimension_count is {each} with heads of {key}")
    if "rope.dimension_count" in _own(header) and not rotates:
        lengths = [key, _whole(header, "attention.key_length_mla"), *_swa(header)]
        if rotated % 2 or rotated > max(lengths):
            raise fail(f"rope.dimension_count is {rotated} with heads of {key}")
    sections = header.hyperparameter("rope.dimension_sections")
    if isinstance(sections, list) and len(sections) > 4:
        raise fail(f"rope.dimension_sections has {len(sections)} values, not 4 or fewer")


def _check_states(header: GGUFHeader, fail: Fail) -> None:
    architecture = header.architecture
    if architecture not in known.MAMBA:
        return
    names = ("conv_kernel", "inner_size", "state_size", "time_step_rank")
    missing = [name for name in names if header.hyperparameter(f"ssm.{name}") is None]
    if missing:
        raise fail(f"{architecture}.ssm.{missing[0]} is missing")
    inner = _whole(header, "ssm.inner_size")
    if architecture == "mamba" and inner != 2 * header.hyperparameter("embedding_length"):
        raise fail(f"ssm.inner_size is {inner}, not twice embedding_length")
    n_heads, groups = _whole(header, "ssm.time_step_rank"), _whole(header, "ssm.group_count")
    if architecture == "mamba2":
        if inner % n_heads:
            raise fail(f"ssm.inner_size {inner} cannot be divided among {n_heads} heads")
        if not groups or inner % groups or n_heads % groups:
            raise fail(f"ssm.group_count is {groups} with ssm.inner_size {inner}")


def head_lengths(header: GGUFHeader, n_heads: int) -> tuple[int, int]:
    """Length of a key and a value of one head, as llama.cpp derives them."""
    even = header.hyperparameter("embedding_length") // n_heads
    key = header.hyperparameter("attention.key_length", even)
    value = header.hyperparameter("attention.value_length", even)
    return key, value


def per_layer(header: GGUFHeader, name: str, n_layers: int) -> list[int]:
    """A hyperparameter as one number a layer; 0 where the file has none."""
    value = header.hyperparameter(name, 0)
    return list(value) if isinstance(value, list) and value else [int(value or 0)] * n_layers


def _own(header: GGUFHeader) -> set[str]:
    prefix = header.architecture + "."
    return {key[len(prefix) :] for key in header.metadata if key.startswith(prefix)}


def _swa(header: GGUFHeader) -> list[int]:
    return [_whole(header, "attention.key_length_swa")]


def _whole(header: GGUFHeader, name: str) -> int:
    value = header.hyperparameter(name, 0)
    return value if isinstance(value, int) else 0
