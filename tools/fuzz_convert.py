"""Convert thousands of spoilt checkpoints: every one is refused by name, or converted and verified.

    python -m tools.fuzz_convert [--cases 6000] [--first 0] [--quantization Q8_0]

A case takes one of the small checkpoints of tests/data/parity and spoils its safetensors header,
its weights' bytes, its index of shards, its config.json or the folder itself, all decided by the
case's number. The conversion runs in a child process, with verification, so llama.cpp loads what
came through. A failure is: an error that is no ConversionError, a child that dies, a case that
computes for over 10 s, more than 1 GB of memory beyond the start's, a file left behind by a
conversion that failed.

Cases 0 to 5,299, 30,000 to 35,399 and 100,000 to 129,999 gave no failure (November 2026,
llama-cpp-python 0.3.36); the figures are in tools/bench/results/README.md. In one process memory
grows by 0.3 MB a case: the tokenizers library keeps some of every tokenizer. Found and mended: an
index with a name that no file can have; a warning of NumPy's at huge logits; a number of 400
digits.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tools.fuzz_runs import Bounds, RunCase, Tally, run_in_children

PARITY = Path(__file__).resolve().parent.parent / "tests" / "data" / "parity"
BASES = (
    *("llama", "qwen2", "gemma3", "gpt2", "mixtral", "mamba", "nomic-bert", "deepseek-v2"),
    *("phi3-long", "gpt-oss-mxfp4", "deepseek-v3-fp8", "falcon", "llama-rope-yarn", "cohere2"),
    *("gemma3-multimodal", "xlm-roberta", "granite-moe", "llama-sharded-f32", "olmo2"),
)
# The tokenizers library keeps some memory of every tokenizer: a new child now and then.
BOUNDS = Bounds(passed="converted", seconds=10.0, n_bytes=2**30, cases_a_child=500)
ABSURD: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 7, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 10**400),
    *(0.0, -0.0, 0.5, 1e-320, 1e38, 1e308, float("inf"), float("-inf"), float("nan")),
    *(None, True, False, "", "a", "\0", "../..", "x" * 10_000, [], {}, [[]], [None], {"a": {}}),
    *([1] * 1000, [-1], [0, 0], ["a"], {"": 0}, "gptq", "default", "linear", "yarn", "longrope"),
)
Json = Any
Random = random.Random


# --- spoiling -------------------------------------------------------------------------------------


def spoil_json(value: Json, dice: Random) -> Json:
    """One change somewhere in a JSON value."""
    if isinstance(value, dict) and value:
        key = dice.choice(list(value))
        changed = dict(value)
        kind = dice.random()
        if kind < 0.12:
            del changed[key]
        elif kind < 0.2:
            changed[dice.choice(["x", key + "x", key.upper(), "__metadata__"])] = value[key]
        elif isinstance(value[key], dict | list) and kind < 0.6:
            changed[key] = spoil_json(value[key], dice)
        else:
            changed[key] = _other(value[key], dice)
        return changed
    if isinstance(value, list) and value:
        i = dice.randrange(len(value))
        changed_list = list(value)
        kind = dice.random()
        if kind < 0.2:
            del changed_list[i]
        elif kind < 0.4:
            changed_list.insert(i, dice.choice([*value, *ABSURD]))
        else:
            changed_list[i] = (
                spoil_json(value[i], dice)
                if isinstance(value[i], dict | list)
                else _other(value[i], dice)
            )
        return changed_list
    return dice.choice(ABSURD)


def _other(value: Json, dice: Random) -> Json:
    """Near the value, or far away from it."""
    if isinstance(value, int) and not isinstance(value, bool) and dice.random() < 0.5:
        return dice.choice([value + 1, value - 1, 2 * value, value // 2, -value, value * 2**20])
    if isinstance(value, float) and dice.random() < 0.4:
        return dice.choice([-value, value * 1e30, value / 1e30, 0.0])
    if isinstance(value, str) and dice.random() < 0.3:
        return dice.choice([value + "x", value[:-1], value.swapcase(), value * 300])
    return dice.choice(ABSURD)


def spoil_bytes(data: bytes, dice: Random) -> bytes:
    """Some bytes changed, cut off, doubled or put in."""
    if not data:
        return b"\0"
    kind = dice.randrange(5)
    at = dice.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + dice.randbytes(dice.choice([1, 8, 300])) + data[at:]
    if kind == 2:
        return data + data[at:]
    spoilt = bytearray(data)
    for _ in range(dice.choice([1, 3, 30])):
        spoilt[dice.randrange(len(spoilt))] = dice.randrange(256)
    return bytes(spoilt)


def _nested(depth: int, dice: Random) -> str:
    opening, closing = dice.choice([("[", "]"), ('{"a":', "}"), ('{"text_config":', "}")])
    return opening * depth + "1" + closing * depth


def spoil_config(folder: Path, dice: Random) -> str:
    """config.json changed as JSON: once or some times."""
    path = folder / "config.json"
    value = json.loads(path.read_text())
    for _ in range(dice.choice([1, 1, 1, 2, 5])):
        value = spoil_json(value, dice)
    path.write_text(json.dumps(value))
    return "config"


def spoil_config_text(folder: Path, dice: Random) -> str:
    """config.json changed as text."""
    path = folder / "config.json"
    if dice.random() < 0.2:
        depth = dice.choice([10, 900, 1100, 50_000, 400_000])
        path.write_text(f'{{"architectures": ["LlamaForCausalLM"], "x": {_nested(depth, dice)}}}')
    elif dice.random() < 0.1:
        path.write_text(path.read_text().replace("}", f', "vocab_size": {"9" * 5000}}}', 1))
    else:
        path.write_bytes(spoil_bytes(path.read_bytes(), dice))
    return "config text"


def _shard(folder: Path, dice: Random) -> Path:
    return dice.choice(sorted(folder.glob("*.safetensors")))


def spoil_header(folder: Path, dice: Random) -> str:
    """A safetensors header changed as JSON; its length stays right."""
    path = _shard(folder, dice)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for _ in range(dice.choice([1, 1, 2, 4])):
        name = dice.choice(list(header) or ["x"])
        if dice.random() < 0.6 and isinstance(header.get(name), dict):
            header[name] = spoil_json(header[name], dice)
        else:
            spoilt = spoil_json(header, dice)
            header = spoilt if isinstance(spoilt, dict) else header
    if dice.random() < 0.1 and len(header) > 2:
        first, second = dice.sample(list(header), 2)
        header[first] = header[second]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return "header"


def spoil_header_length(folder: Path, dice: Random) -> str:
    """The eight bytes before the header."""
    path = _shard(folder, dice)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    near = (0, 1, length - 1, length + 1, 2 * length, len(data), len(data) - 8)
    lie = dice.choice([*near, 2**25, 2**32, 2**63, 2**64 - 1, dice.randrange(2**64)])
    path.write_bytes(struct.pack("<Q", lie) + data[8:])
    return "header length"


def spoil_file(folder: Path, dice: Random) -> str:
    """Bytes anywhere in a safetensors file."""
    path = _shard(folder, dice)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    if dice.random() < 0.5:
        path.write_bytes(data[:8] + spoil_bytes(data[8 : 8 + length], dice) + data[8 + length :])
    else:
        path.write_bytes(spoil_bytes(data, dice))
    return "file"


def spoil_index(folder: Path, dice: Random) -> str:
    """The checkpoint as shards, with an index that lies."""
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    if shards == ["model.safetensors"]:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        shards = ["model-00001-of-00001.safetensors"]
    weight_map: dict[str, Json] = {}
    for shard in shards:
        data = (folder / shard).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        names = [name for name in json.loads(data[8 : 8 + length]) if name != "__metadata__"]
        weight_map.update(dict.fromkeys(names, shard))
    index: Json = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    for _ in range(dice.choice([1, 2, 3])):
        if (
            dice.random() < 0.5
            and isinstance(index, dict)
            and isinstance(index.get("weight_map"), dict)
        ):
            name = dice.choice(list(index["weight_map"]) or ["x"])
            places = [
                "../out.safetensors",
                "/etc/passwd",
                "",
                ".",
                "..",
                "a/../../b",
                "a\0b",
                "config.json",
            ]
            index["weight_map"][name] = dice.choice([*places, *shards, "no.safetensors", 3, None])
        else:
            index = spoil_json(index, dice)
    path = folder / "model.safetensors.index.json"
    text = json.dumps(index).encode()
    path.write_bytes(spoil_bytes(text, dice) if dice.random() < 0.15 else text)
    return "index"


def spoil_folder(folder: Path, dice: Random) -> str:
    """Files gone, in the wrong place, linked, or not what they say."""
    path = _shard(folder, dice)
    outside = folder.parent / "outside.safetensors"
    kind = dice.randrange(7)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        shutil.move(path, outside)
        path.symlink_to(outside)
    elif kind == 2:
        path.unlink()
        path.symlink_to(path)
    elif kind == 3:
        path.unlink()
        path.mkdir()
    elif kind == 4:
        path.rename(folder / "pytorch_model.bin")
    elif kind == 5:
        for number in (1, 2):
            shutil.copy(
                path, folder / f"model-0000{number}-of-0000{dice.choice([1, 2, 3])}.safetensors"
            )
        path.unlink()
    else:
        target = folder / dice.choice(["config.json", "tokenizer.json", "generation_config.json"])
        target.unlink(missing_ok=True)
        dice.choice([lambda: target.mkdir(), lambda: target.symlink_to("/etc/passwd")])()
    return "folder"


SPOILERS: tuple[Callable[[Path, Random], str], ...] = (
    *(spoil_config, spoil_config, spoil_config, spoil_config),
    *(spoil_header, spoil_header, spoil_header),
    *(spoil_config_text, spoil_header_length, spoil_file, spoil_index, spoil_index, spoil_folder),
)


# --- running --------------------------------------------------------------------------------------


def run_case(case: int, scratch: Path, *, quantization: str, verify: bool) -> tuple[str, str]:
    """(what was spoilt, the error's class or "converted"). AssertionError for a file left behind.

    Whatever else the conversion raises comes out of here.
    """
    from mofa_gguf.convert import ConversionError, convert

    dice = random.Random(case)
    base, spoil = dice.choice(BASES), dice.choice(SPOILERS)
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder, results = Path(name) / "checkpoint", Path(name) / "results"
        shutil.copytree(PARITY / base, folder, ignore=shutil.ignore_patterns("reference.npz"))
        results.mkdir()
        what = spoil(folder, dice)
        output = results / "model.gguf"
        try:
            convert(folder, output, quantization, threads=1, verify=verify)
        except ConversionError as error:
            left = [path.name for path in results.iterdir()]
            assert not left, f"left behind: {left}"
            lines = str(error).count("\n")
            assert not lines, f"{lines + 1} lines of error"
            return what, type(error).__name__
        left = [path.name for path in results.iterdir()]
        assert left == ["model.gguf"], f"left behind: {left}"
        return what, "converted"


def _set_up(scratch: Path, quantization: str, verify: bool) -> RunCase:
    import mofa_gguf.convert.pipeline  # noqa: F401 - not the first case's memory

    return functools.partial(run_case, scratch=scratch, quantization=quantization, verify=verify)


def campaign(
    cases: Iterable[int], *, quantization: str = "Q8_0", verify: bool = True, say: bool = False
) -> Tally:
    """Run the cases in child processes; a child that hangs or dies costs one case."""
    with tempfile.TemporaryDirectory(prefix="mofa-gguf-fuzz-") as scratch:
        set_up = functools.partial(_set_up, Path(scratch), quantization, verify)
        return run_in_children(cases, set_up, BOUNDS, say=say)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=6000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--quantization", default="Q8_0")
    arguments = parser.parse_args()
    cases = range(arguments.first, arguments.first + arguments.cases)
    tally = campaign(cases, quantization=arguments.quantization, say=True)
    return tally.show("converted and verified")


if __name__ == "__main__":
    sys.exit(main())
