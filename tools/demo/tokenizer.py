"""The demo model's tokenizer: byte-level BPE trained on the dialogues' own text."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cases import Dialogue
from .dialogues import training_dialogues
from .template import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    MARKS,
    SPECIAL_TOKENS,
    TURN_END,
    TURN_START,
    render,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tokenizers import Tokenizer

VOCABULARY_SIZE = 2560
MAX_LENGTH = 1024


def _texts(seed: int, n_dialogues: int) -> Iterator[str]:
    """The dialogues' text without any mark that has a token of its own."""
    for dialogue in itertools.islice(training_dialogues(seed), n_dialogues):
        text = render(dialogue.messages, dialogue.tools)
        for mark in SPECIAL_TOKENS + MARKS:
            text = text.replace(mark, "\x00")
        yield from (part for part in text.split("\x00") if part.strip())


def train_tokenizer(seed: int, n_dialogues: int = 20_000) -> Tokenizer:
    """Train the vocabulary; digits are always single tokens.

    The pre-tokenizer is the one that llama.cpp calls ``smollm``: digits one by one, then GPT-2's
    split into words.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(MARKS),
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, n_dialogues), trainer=trainer)
    tokenizer.add_tokens([AddedToken(m, special=False, normalized=False) for m in MARKS])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token in SPECIAL_TOKENS,
        }
        for token in SPECIAL_TOKENS + MARKS
    }
    config: dict[str, Any] = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "model_max_length": MAX_LENGTH,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    names = {
        "additional_special_tokens": [TURN_START],
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
    }
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", names)):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def assistant_mask(ids: Sequence[int], tokenizer: Tokenizer) -> list[bool]:
    """For each token whether the assistant writes it: its text, and the end of its turn."""
    header = tokenizer.encode(f"{TURN_START}assistant\n", add_special_tokens=False).ids
    end = tokenizer.token_to_id(TURN_END)
    mask, writing = [False] * len(ids), False
    for at, token in enumerate(ids):
        mask[at] = writing
        if writing and token == end:
            writing = False
        elif list(ids[at - len(header) + 1 : at + 1]) == header:
            writing = True
    return mask


def encode_dialogue(dialogue: Dialogue, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """A dialogue's token ids and which of them the assistant writes."""
    text = render(dialogue.messages, dialogue.tools)
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:MAX_LENGTH]
    return ids, assistant_mask(ids, tokenizer)
