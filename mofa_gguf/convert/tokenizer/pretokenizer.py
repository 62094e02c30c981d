"""Which of llama.cpp's pre-tokenizers splits text as the checkpoint's own does.

llama.cpp knows pre-tokenizers by name (``tokenizer.ggml.pre``, src/llama-vocab.cpp) and its
converter picks one by a table of hashes. Here they are tried. Splitting does not depend on the
vocabulary, so every candidate is first run on a *probe*: a small vocabulary in which each word that
the checkpoint's pre-tokenizer makes of the battery is one token, and so are two neighbouring words.
A candidate that splits in the same places gives the same tokens; one that splits more or less than
that gives others. The probe takes milliseconds a candidate and ranks them; the full vocabulary is
loaded only for the best.
"""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer.agreement import limit
from mofa_gguf.convert.tokenizer.battery import FULL
from mofa_gguf.convert.tokenizer.hf_json import TokenizerJson
from mofa_gguf.convert.tokenizer.reference import HuggingFaceReference, shielded
from mofa_gguf.convert.tokenizer.vocabulary import TokenType
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from mofa_gguf.engine.errors import EngineError, LibraryUnavailable
from mofa_gguf.engine.tokens.vocab_file import VocabFile

logger = logging.getLogger(__name__)

# One name for each way of splitting in llama.cpp's list, the most common first. qwen2 stands for
# stablelm2 and hunyuan, dbrx (llama-bpe without ignore_merges) for smaug-bpe, gpt-2 for mpt and
# olmo; smollm for starcoder and refact, which drop spaces before punctuation when they decode.
BYTE_LEVEL_CANDIDATES: tuple[str, ...] = (
    "llama-bpe",
    "qwen2",
    "gpt-2",
    "smollm",
    "dbrx",
    "tekken",
    "gpt-4o",
    "deepseek-v3",
    "deepseek-llm",
    "deepseek-coder",
    "falcon",
    "qwen35",
    "default",
    "bloom",
    "viking",
    "jais-2",
    "chameleon",
    "superbpe",
    "bailingmoe",
    "seed-coder",
    "exaone-moe",
    "granite-embed-multi-97m",
    "tiny_aya",
    "afmoe",
    "youtu",
    "kimi-k2",
    "minicpm5",
    "laguna",
    "spark2_5",
    "ufakzeka",
)

# Words of the probe that are tokens but cannot be merged: they show whether merges are ignored
# for whole words (``ignore_merges``).
_N_UNMERGEABLE = 3
_MAX_WORD_CHARACTERS = 300


@dataclass(frozen=True)
class RankedCandidate:
    """A pre-tokenizer, on how many texts of the probe it differed, and on how many for no reason.

    See :data:`mofa_gguf.convert.tokenizer.agreement.LIMITS` for the reasons.
    """

    name: str
    n_unexplained: int
    n_differing: int


def rank(
    source: TokenizerJson, reference: HuggingFaceReference, folder: Path
) -> list[RankedCandidate]:
    """Candidates, best first; the order of the list above decides between equals.

    ``folder`` takes a temporary file. Raises TokenizerError when the tokenizer cannot be run.
    """
    probe = _Probe(source, reference)
    path = folder / "probe.gguf"
    ranked = []
    for name in BYTE_LEVEL_CANDIDATES:
        write_vocabulary_file(path, probe.metadata, pre_tokenizer=name)
        try:
            with VocabFile(path) as file:
                candidate = probe.run(name, file)
        except LibraryUnavailable as error:
            raise TokenizerError(f"{source.path}: cannot be measured: {error}") from error
        except EngineError as error:
            # An older llama.cpp does not know every name.
            logger.debug("pre-tokenizer %s could not be tried: %s", name, error)
            continue
        ranked.append(candidate)
        if candidate.n_differing == 0:
            break
    return sorted(ranked, key=lambda candidate: (candidate.n_unexplained, candidate.n_differing))


class _Probe:
    """The probe vocabulary in both forms: for llama.cpp and for the `tokenizers` library."""

    def __init__(self, source: TokenizerJson, reference: HuggingFaceReference) -> None:
        self._texts = [reference.normalize(item.text) for item in FULL]
        tokens, merges = _probe_vocabulary([reference.words(text) for text in self._texts])
        self.metadata = _probe_metadata(tokens, merges)
        self._expected = self._encode_all(source, tokens, merges)

    def run(self, name: str, file: VocabFile) -> RankedCandidate:
        """Compare on every text."""
        n_differing = n_unexplained = 0
        for item, text, expected in zip(FULL, self._texts, self._expected, strict=True):
            if file.vocab.tokenize(text) != expected:
                n_differing += 1
                n_unexplained += limit(item, "bpe", name) is None
        return RankedCandidate(name, n_unexplained, n_differing)

    def _encode_all(
        self, source: TokenizerJson, tokens: list[str], merges: list[tuple[str, str]]
    ) -> list[list[int]]:
        from tokenizers import Tokenizer

        document = {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": source.section("normalizer"),
            "pre_tokenizer": source.section("pre_tokenizer"),
            "model": {
                "type": "BPE",
                "ignore_merges": source.model.get("ignore_merges") is True,
                "vocab": {text: token for token, text in enumerate(tokens)},
                "merges": [list(pair) for pair in merges],
            },
        }

        def encode() -> list[list[int]]:
            tokenizer: Any = Tokenizer.from_str(json.dumps(document))
            return [list(tokenizer.encode(text).ids) for text in self._texts]

        return shielded(f"{source.path}: its pre-tokenizer cannot be tried", encode)


def _probe_vocabulary(
    split_texts: list[list[str]],
) -> tuple[list[str], list[tuple[str, str]]]:
    """Byte tokens; each word grown character by character, with the merges that grow it; then
    every two neighbours, which merge only where no boundary is seen between them."""
    words = dict.fromkeys(word for words in split_texts for word in words if _usable(word))
    tokens = dict.fromkeys(byte_characters())
    merges: dict[tuple[str, str], None] = {}
    unmergeable = set(sorted(words, key=len)[-_N_UNMERGEABLE:])
    for word in words:
        for end in range(2, len(word) + 1):
            tokens[word[:end]] = None
            if end < len(word) or word not in unmergeable:
                merges[word[: end - 1], word[end - 1]] = None
    for neighbours in split_texts:
        for left, right in itertools.pairwise(neighbours):
            if _usable(left) and _usable(right):
                tokens[left + right] = None
                merges[left, right] = None
    return list(tokens), list(merges)


def _usable(word: str) -> bool:
    return 0 < len(word) <= _MAX_WORD_CHARACTERS


def _probe_metadata(tokens: list[str], merges: list[tuple[str, str]]) -> Metadata:
    data = Metadata()
    data.string("tokenizer.ggml.model", "gpt2")
    data.strings("tokenizer.ggml.tokens", tokens)
    data.int32s("tokenizer.ggml.token_type", [int(TokenType.NORMAL)] * len(tokens))
    data.strings("tokenizer.ggml.merges", [f"{a} {b}" for a, b in merges])
    return data


def byte_characters() -> list[str]:
    """The 256 characters that stand for bytes in a byte-level vocabulary, in the order of bytes.

    Printable Latin-1 bytes stand for themselves, the others for U+0100 and up (GPT-2, encoder.py).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    characters = []
    n_moved = 0
    for byte in range(256):
        if byte in printable:
            characters.append(chr(byte))
        else:
            characters.append(chr(0x100 + n_moved))
            n_moved += 1
    return characters
