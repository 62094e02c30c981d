"""A checkpoint folder: config.json and safetensors shards, nothing outside, nothing executed.

Reads what transformers' ``save_pretrained`` writes: ``model.safetensors``, or numbered shards with
``model.safetensors.index.json``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt

from mofa_gguf.convert.config import Config, read_json_object
from mofa_gguf.convert.errors import (
    BadTensor,
    CheckpointError,
    PickleRefused,
    QuantizedCheckpoint,
)
from mofa_gguf.convert.safetensors_file import SafetensorsFile, StoredTensor

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
MAX_SHARDS = 10_000
MAX_PATH, MAX_NAME_BYTES = 1024, 255
"""Of a path inside the folder, and of each of its parts."""
READABLE_METHODS = ("fp8", "mxfp4")
"""Values of quantization_config.quant_method that the converter reads: 8-bit floats with a scale a
block (block_scaled.py) and gpt-oss's 4-bit blocks (families/gpt_oss.py)."""

_QUANTIZER_FILES = {"quantize_config.json": "gptq or awq", "hf_quant_config.json": "modelopt"}
# Endings of the tensors that quantizers write (AutoGPTQ, AutoAWQ, bitsandbytes, compressed-tensors,
# HQQ); bitsandbytes has more of them behind a dot.
_PACKED = {
    ".qweight": "gptq or awq",
    ".qzeros": "gptq or awq",
    ".weight.absmax": "bitsandbytes",
    ".weight.quant_state": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".weight_packed": "compressed-tensors",
    ".W_q": "hqq",
}


class Checkpoint:
    """An open checkpoint folder. Use as a context manager.

    ``tensors`` maps every tensor's name to its description, in the order of shards and offsets.
    """

    def __init__(self, folder: Path, config: Config, shards: tuple[SafetensorsFile, ...]) -> None:
        self.folder = folder
        self.config = config
        self.shards = shards
        self._shard_of: dict[str, SafetensorsFile] = {}
        tensors: dict[str, StoredTensor] = {}
        for shard in self.shards:
            for tensor in sorted(shard.tensors.values(), key=lambda tensor: tensor.start):
                if tensor.name in tensors:
                    first = self._shard_of[tensor.name].path.name
                    raise BadTensor(
                        self.folder, tensor.name, f"is in both {first} and {shard.path.name}"
                    )
                tensors[tensor.name] = tensor
                self._shard_of[tensor.name] = shard
        self.tensors: Mapping[str, StoredTensor] = tensors

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that config.json names, usually one."""
        names = self.config.values.get("architectures")
        if not isinstance(names, list):
            return ()
        return tuple(name for name in names if isinstance(name, str))

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(shard.n_bytes for shard in self.shards)

    def array(self, name: str) -> npt.NDArray[Any]:
        """A read-only view of a tensor in its file; see :meth:`SafetensorsFile.array`."""
        return self._shard_of[name].array(name)

    def release(self, name: str) -> None:
        """The tensor's pages are no longer needed in memory."""
        self._shard_of[name].release(name)

    def file_of(self, name: str) -> Path:
        """The shard that holds a tensor."""
        return self._shard_of[name].path

    def optional_json(self, *parts: str) -> Config | None:
        """Another JSON object of the folder (``1_Pooling/config.json``), or None if absent."""
        path = inside(self.folder, "/".join(parts))
        return Config(read_json_object(path), path) if path.exists() else None

    def fingerprint(self) -> str:
        """SHA-256 (hex) over config.json and the shards' headers and sizes, not the weights.

        The modules of sentence-transformers (modules.json, and what their folders hold) count too.
        """
        digest = hashlib.sha256(inside(self.folder, "config.json").read_bytes())
        headers = [shard.header for shard in self.shards]
        for path in self._module_files():
            name = path.relative_to(self.folder).as_posix().encode(errors="surrogatepass")
            is_json = path.suffix == ".json"
            headers += [name, path.read_bytes() if is_json else SafetensorsFile(path).header]
        for header in headers:
            digest.update(len(header).to_bytes(8, "little"))
            digest.update(header)
        return digest.hexdigest()

    def _module_files(self) -> list[Path]:
        """What sentence-transformers keeps beside the model, in a fixed order."""
        if not (self.folder / "modules.json").exists():
            return []
        found = [self.folder / "modules.json", self.folder / "sentence_bert_config.json"]
        found += [*self.folder.glob("[0-9]*_*/config.json")]
        found += [*self.folder.glob("[0-9]*_*/model.safetensors")]
        names = sorted(path.relative_to(self.folder).as_posix() for path in found if path.is_file())
        return [inside(self.folder, name) for name in names]

    def close(self) -> None:
        """Forget the shards' mappings; may be called twice."""
        for shard in self.shards:
            shard.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open and check a folder; only headers are read.

    Raises CheckpointError and its subclasses: no folder, no config.json, pickled or already
    quantized weights, missing or broken shards, paths that lead out of the folder.
    """
    if not folder.exists():
        raise CheckpointError(folder, "there is no such folder")
    if not folder.is_dir():
        raise CheckpointError(
            folder,
            "is a file; give the folder that holds config.json and the safetensors files, or take "
            "mofa-gguf quantize for a GGUF file",
        )
    config_path = inside(folder, "config.json")
    if not config_path.exists():
        if (folder / "adapter_config.json").exists():
            _explain_missing_weights(folder)
        raise CheckpointError(
            folder, "has no config.json; a checkpoint folder holds config.json and *.safetensors"
        )
    config = Config(read_json_object(config_path), config_path)
    _refuse_quantized(folder, config)
    shards = tuple(_shards(folder))
    _refuse_packed(folder, shards)
    return Checkpoint(folder, config, shards)


def inside(folder: Path, name: str) -> Path:
    """``folder / name``, which must not lead out of the folder: CheckpointError otherwise.

    Symbolic links are followed, and their target must be in the folder too. One layout is known
    and allowed: the Hugging Face cache, whose ``snapshots/<revision>`` folders link to the
    ``blobs`` folder beside them.
    """
    path = Path(name)
    lengths = [len(part.encode(errors="surrogatepass")) for part in path.parts]
    if len(name) > MAX_PATH or max(lengths, default=0) > MAX_NAME_BYTES:
        raise CheckpointError(folder, f"the path {name!r:.80} is too long to be a file's")
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise CheckpointError(folder, f"the path {name!r:.200} leads out of the folder")
    try:
        target = (folder / path).resolve()
        home = folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(folder, f"{name!r:.200} cannot be followed ({error})") from error
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(home.parent.parent / "blobs")
    if not any(target.is_relative_to(place) for place in allowed):
        raise CheckpointError(folder, f"{name!r:.200} is a link that leads out of the folder")
    return folder / path


def _refuse_quantized(folder: Path, config: Config) -> None:
    """Raise QuantizedCheckpoint where config.json or a file beside it tells of such weights."""
    # compressed-tensors was called compression_config first.
    section = config.section("quantization_config", "compression_config")
    if section is not None:
        default = "compressed-tensors" if "compression_config" in config else "unknown method"
        method = section.string("quant_method", "quant_algo", default=default)
        if method in READABLE_METHODS:
            return
        raise QuantizedCheckpoint(folder, method)
    for name, method in _QUANTIZER_FILES.items():
        if (folder / name).exists():
            raise QuantizedCheckpoint(folder, method)


def _refuse_packed(folder: Path, shards: tuple[SafetensorsFile, ...]) -> None:
    """Raise QuantizedCheckpoint where the tensors' names tell it, whatever config.json says."""
    for shard in shards:
        for name in shard.tensors:
            for ending, method in _PACKED.items():
                if name.endswith(ending) or f"{ending}." in name:
                    raise QuantizedCheckpoint(folder, method)


def _shards(folder: Path) -> Iterable[SafetensorsFile]:
    if (folder / _SINGLE).exists():
        return [SafetensorsFile(inside(folder, _SINGLE))]
    if (folder / _INDEX).exists():
        return _indexed_shards(folder)
    numbered = sorted(path.name for path in folder.glob("model-*.safetensors"))
    if numbered:
        return [SafetensorsFile(inside(folder, name)) for name in _complete(folder, numbered)]
    _explain_missing_weights(folder)
    raise CheckpointError(
        folder, f"has no weights: neither {_SINGLE} nor {_INDEX}; is the download complete?"
    )


def _indexed_shards(folder: Path) -> Iterator[SafetensorsFile]:
    index_path = inside(folder, _INDEX)
    weight_map = read_json_object(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(index_path, "has no weight_map")
    names: dict[str, list[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            raise CheckpointError(index_path, f"names no file for the tensor {tensor!r:.80}")
        names.setdefault(name, []).append(tensor)
    if len(names) > MAX_SHARDS:
        raise CheckpointError(index_path, f"names {len(names)} shards; at most {MAX_SHARDS} can be")
    for name, expected in sorted(names.items()):
        path = inside(folder, name)
        if not path.exists():
            raise CheckpointError(folder, f"the shard {name} is missing; is the download complete?")
        shard = SafetensorsFile(path)
        for tensor in expected:
            if tensor not in shard.tensors:
                raise BadTensor(path, tensor, "is listed in the index but is not in this shard")
        yield shard


def _complete(folder: Path, names: list[str]) -> list[str]:
    """Numbered shards without an index: all of ``model-00001-of-N`` to N must be there."""
    matches = [match for name in names if (match := _SHARD.fullmatch(name))]
    totals = {int(match.group(2)) for match in matches}
    if len(totals) != 1 or len(matches) != len(names):
        raise CheckpointError(folder, f"has no {_INDEX}, and the shards' names do not fit together")
    present = {int(match.group(1)) for match in matches}
    missing = sorted(set(range(1, max(totals) + 1)) - present)
    if missing:
        raise CheckpointError(
            folder, f"shard {missing[0]} of {max(totals)} is missing; is the download complete?"
        )
    return names


def _explain_missing_weights(folder: Path) -> None:
    """Raise the error that tells why there are no weights, where the folder's content tells it."""
    if (folder / "adapter_model.safetensors").exists():
        raise CheckpointError(
            folder,
            "holds a LoRA adapter, not a model; convert it for its base model (--base CHECKPOINT), "
            "or merge it first",
        )
    other = sorted(path.name for path in folder.glob("*.safetensors"))
    if other:
        raise CheckpointError(
            folder,
            f"has {other[0]} but not {_SINGLE}; save the model with save_pretrained, "
            "which writes the names and layout that the converter reads",
        )
    if any(next(folder.glob(pattern), None) for pattern in _PICKLES):
        raise PickleRefused(folder)
