"""Compare our files with those of llama.cpp's converter: metadata and every tensor's bytes.

    python tools/compare_with_peer.py --llama-cpp FOLDER --peer-python PYTHON [NAME ...]

Takes the checkpoints in tests/data/parity. FOLDER is llama.cpp's source of the version that
llama-cpp-python was built from, PYTHON one that has torch and transformers. Prints Markdown: a
line for each difference. Tokenizers and general.* keys are left out (see peer_convert.py).
"""

from __future__ import annotations

import argparse
import math
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from mofa_gguf.convert import convert

TOOLS = Path(__file__).resolve().parent
PARITY = TOOLS.parent / "tests" / "data" / "parity"
OTHERS = ("GGUF.", "tokenizer.", "general.", "mofa_gguf.")


def contents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and tensors of a file."""
    reader = gguf.GGUFReader(path)
    keys = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith(OTHERS)
    }
    return keys, {tensor.name: tensor for tensor in reader.tensors}


def differences(ours: Path, theirs: Path) -> Iterator[str]:
    """One line each."""
    our_keys, our_tensors = contents(ours)
    their_keys, their_tensors = contents(theirs)
    for key in sorted(our_keys | their_keys):
        one, other = our_keys.get(key), their_keys.get(key)
        floats = isinstance(one, float) and isinstance(other, float)
        if one != other and not (floats and math.isclose(one, other, rel_tol=1e-6)):
            yield f"`{key}`: ours {one}, theirs {other}"
    yield from tensor_differences(our_tensors, their_tensors)


def tensor_differences(our_tensors: dict[str, Any], their_tensors: dict[str, Any]) -> Iterator[str]:
    """A line for each tensor, but one for all whose values differ."""
    farthest: dict[str, float] = {}
    for name in sorted(our_tensors | their_tensors):
        if name not in our_tensors or name not in their_tensors:
            yield f"`{name}`: only {'ours' if name in our_tensors else 'theirs'}"
            continue
        one, other = our_tensors[name], their_tensors[name]
        if one.tensor_type != other.tensor_type or tuple(one.shape) != tuple(other.shape):
            yield f"`{name}`: another type or shape"
        elif one.data.tobytes() != other.data.tobytes():
            distance = np.abs(one.data.astype(np.float64) - other.data.astype(np.float64))
            farthest[name] = float(distance.max())
    if farthest:
        names = ", ".join(f"`{name}`" for name in list(farthest)[:3])
        yield f"{len(farthest)} tensors by up to {max(farthest.values()):.2g} ({names}, ...)"


def compare(folder: Path, peers: Path, scratch: Path) -> Iterator[str]:
    """The findings about one checkpoint."""
    failure = peers / f"{folder.name}.txt"
    if failure.exists():
        yield f"llama.cpp's converter fails: {failure.read_text().strip():.200}"
        return
    report = convert(folder, scratch / "ours.gguf", "F32", force=True, verify=False)
    yield from differences(report.output, peers / f"{folder.name}.gguf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all by default")
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("--peer-python", required=True)
    arguments = parser.parse_args()
    folders = sorted(path for path in PARITY.iterdir() if path.is_dir())
    chosen = [path for path in folders if not arguments.names or path.name in arguments.names]
    with tempfile.TemporaryDirectory() as scratch:
        peers = Path(scratch) / "peers"
        script = str(TOOLS / "peer_convert.py")
        command = [arguments.peer_python, script, str(arguments.llama_cpp), str(peers)]
        subprocess.run([*command, *map(str, chosen)], check=True, stderr=subprocess.DEVNULL)
        for folder in chosen:
            found = list(compare(folder, peers, Path(scratch)))
            print(f"- **{folder.name}**: {'; '.join(found) or 'the same'}")


if __name__ == "__main__":
    main()
