"""Make the tests' rerankers: tiny checkpoints with random weights, and transformers' own scores.

    python tools/make_reranker_fixtures.py tests/data/rerankers

Needs torch, transformers and tokenizers, which the project itself does not. Each checkpoint reads
a query and a document together and has one output; ``expected.json`` holds pairs of texts, the
tokens that the checkpoint's tokenizer makes of them, and the logits that transformers computes: as
it is (``score``), and with GELU as llama.cpp computes it on a CPU (``score_with_its_gelu``), by its
approximation with tanh and in F16. The second tells a small difference from a wrong one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

TEXT = "what is a cat dog bird it lives in the house tree sings and sleeps all day long"
PAIRS = [
    ("what is a cat", "a cat sleeps all day long"),
    ("what is a cat", "the bird sings in the tree"),
    ("what is a cat", "a dog lives in the house and it is a long day"),
    ("it sings", "bird"),
    ("the house", "cat"),
]
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_labels": 1,
    "initializer_range": 0.5,
}


class LlamaCppGelu(torch.nn.Module):
    """ggml's GELU: looked up in a table of F16 values of the approximation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, torch.zeros_like(x), torch.where(x >= 10, x, y))


def bert(folder: Path) -> None:
    """A WordPiece vocabulary: [CLS] query [SEP] document [SEP]."""
    letters = list("abcdefghijklmnopqrstuvwxyz")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    words = [word for word in dict.fromkeys(TEXT.split()) if len(word) > 1]
    vocabulary += [*(f"##{letter}" for letter in letters), *words]
    ids = {text: i for i, text in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    # One type of tokens: llama.cpp gives them all the first.
    config = BertConfig(vocab_size=len(ids), max_position_embeddings=64, type_vocab_size=1, **SHAPE)
    write(folder, BertForSequenceClassification(config), fast)


def roberta(folder: Path) -> None:
    """A byte-level vocabulary: <s> query </s></s> document </s>."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {text: i for i, text in enumerate([*special, *letters])}
    merges = []
    for word in dict.fromkeys(TEXT.split()):
        text = "\u0120"
        for letter in word:
            merged = text + letter
            if merged not in ids:
                ids[merged] = len(ids)
                merges.append((text, letter))
            text = merged
    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    config = RobertaConfig(
        vocab_size=len(ids), max_position_embeddings=66, type_vocab_size=1, pad_token_id=1, **SHAPE
    )
    write(folder, RobertaForSequenceClassification(config), fast)


def write(folder: Path, model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast) -> None:
    """Checkpoint, tokenizer and what is expected of them."""
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    expected = [
        {"query": q, "document": d, "tokens": tokenizer(q, d)["input_ids"]} for q, d in PAIRS
    ]
    score(model, expected, "score")
    for layer in model.base_model.encoder.layer:
        layer.intermediate.intermediate_act_fn = LlamaCppGelu()
    score(model, expected, "score_with_its_gelu")
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def score(model: torch.nn.Module, expected: list[dict[str, object]], key: str) -> None:
    """Add the model's logit of each pair."""
    for each in expected:
        with torch.no_grad():
            each[key] = float(model(torch.tensor([each["tokens"]])).logits[0, 0])


if __name__ == "__main__":
    for n, make in enumerate((bert, roberta)):
        torch.manual_seed(n)
        make(Path(sys.argv[1]) / make.__name__)
