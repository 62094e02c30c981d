"""Table of published tokenizers: how llama.cpp alone agrees with them, and how this package does.

    python tools/tokenizer_agreement.py FOLDER_OF_TOKENIZERS > tools/tokenizer_agreement.md

The folder holds one folder a model with its tokenizer files and config.json (``.gz`` files are
unpacked). Every tokenizer is converted to a vocabulary file and asked for the texts of the battery,
for rare characters, and for its own added tokens in running text.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mofa_gguf.convert.tokenizer import Vocabulary, build_vocabulary  # noqa: E402
from mofa_gguf.convert.tokenizer.battery import FULL  # noqa: E402
from mofa_gguf.convert.tokenizer.rare import RareText, rare_texts  # noqa: E402
from mofa_gguf.convert.tokenizer.reference import HuggingFaceReference  # noqa: E402
from mofa_gguf.convert.tokenizer.sources import open_source  # noqa: E402
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file  # noqa: E402
from mofa_gguf.engine.tokens.vocab_file import VocabFile  # noqa: E402
from tests.convert.tokenizer.makers import n_rows  # noqa: E402

HEAD = """# Agreement with published tokenizers

Texts on which the tokens are those of the checkpoint's own tokenizer (the `tokenizers` library,
or `sentencepiece` where there is only its model), out of those asked. "llama.cpp" reads the file
as any other program does; "mofa-gguf" uses what the file keeps besides: nothing, the Unicode form
("normalizer"), or the whole tokenizer. "Battery": {n_battery} texts of scripts, code, digits,
white space and emoji. "Rare": characters of all blocks up to Unicode 15, and the tokenizer's own
added tokens in running text, control tokens read as such. Made by `tools/tokenizer_agreement.py`.

| tokenizer | kind | pre-tokenizer | file keeps | battery, llama.cpp | battery, mofa-gguf | \
rare, llama.cpp | rare, mofa-gguf |
|---|---|---|---|---|---|---|---|"""


def checkpoints(folder: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Names and unpacked folders; a second tokenizer.json in a folder counts as one more."""
    for source in sorted(path for path in folder.iterdir() if path.is_dir()):
        packed = sorted(source.glob("*tokenizer.json.gz")) or [None]
        for path in packed:
            variant = "" if path is None else path.name.removesuffix("tokenizer.json.gz")
            name = f"{source.name} {variant.rstrip('.')}".strip()
            target = scratch / name
            target.mkdir()
            for file in source.iterdir():
                if file.is_file() and file.suffix != ".gz":
                    shutil.copyfile(file, target / file.name)
            if path is not None:
                (target / "tokenizer.json").write_bytes(gzip.decompress(path.read_bytes()))
            yield name, target


def read(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of the folder; empty where there is none."""
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def row(name: str, folder: Path, scratch: Path) -> str:
    """The tokenizer's line of the table."""
    config = read(folder, "config.json")
    rows = n_rows(folder, config)
    vocabulary = build_vocabulary(folder, config=config, n_vocab=rows, allow_mismatch=True)
    config = read(folder, "tokenizer_config.json")
    document = open_source(folder, tokenizer_config=config, n_vocab=rows).document
    rare = list(rare_texts(() if document is None else document.added))
    path = scratch / "vocabulary.gguf"
    metadata = vocabulary.metadata()
    write_vocabulary_file(path, metadata, pre_tokenizer=vocabulary.pre_tokenizer)
    with VocabFile(path) as file:
        counts = [
            count
            for texts in ([RareText(item.text) for item in FULL], rare)
            for count in agreeing(
                vocabulary, texts, file.vocab.tokenize_natively, file.vocab.tokenize
            )
        ]
    cells = [name, vocabulary.kind, vocabulary.pre_tokenizer, vocabulary.kept.value, *counts]
    return f"| {' | '.join(cells)} |"


def agreeing(
    vocabulary: Vocabulary, texts: Sequence[RareText], *ways: Callable[..., list[int]]
) -> list[str]:
    """ "agree/asked" for each way of tokenizing."""
    expected = [(item, reference_tokens(vocabulary, item)) for item in texts]
    counts = []
    for way in ways:
        same = [way(item.text, parse_special=item.parse_special) == e for item, e in expected]
        counts.append(f"{sum(same)}/{len(texts)}")
    return counts


def reference_tokens(vocabulary: Vocabulary, item: RareText) -> list[int]:
    """What the checkpoint's own tokenizer gives."""
    if item.parse_special:
        assert isinstance(vocabulary.reference, HuggingFaceReference)
        return vocabulary.reference.encode_with_control(item.text)
    return vocabulary.reference.encode(item.text)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(HEAD.format(n_battery=len(FULL)))
    with tempfile.TemporaryDirectory(prefix="mofa-gguf-") as temporary:
        for name, folder in checkpoints(options.folder, Path(temporary)):
            print(row(name, folder, Path(temporary)), flush=True)


if __name__ == "__main__":
    main()
