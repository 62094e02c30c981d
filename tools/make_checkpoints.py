"""Make tiny checkpoints with random weights, as transformers writes them.

    python tools/make_checkpoints.py --list
    python tools/make_checkpoints.py llama-gqa qwen2 --out FOLDER

For tests of the converter: every norm and bias is random too, so that a forgotten one shows.
Needs torch, transformers, tokenizers and sentencepiece, which the project itself does not.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers
from dense_recipes import DENSE
from expert_recipes import EXPERTS
from more_recipes import MORE
from packed_weights import PACKINGS

N_VOCAB = 320
WIDTH = 64

# What the tiny tokenizers are trained on.
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "A model in the same process answers without a server; an agent asks, the model answers.",
    "One, two, three: 123 plus 456 is 579, and 3.14 is less than 10.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
    "Das Wetter ist schön, und morgen wird es noch schöner. Où est la gare ?",
    "今天天气很好，我们去公园散步。 Привет, как дела? 👋🙂",
] * 4

SMALL = {
    "vocab_size": N_VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Recipe:
    """One checkpoint: a class of transformers, its configuration, how it is stored."""

    model_class: str
    config: dict[str, Any] = field(default_factory=dict)
    dtype: str = "bfloat16"
    tokenizer: str = "bpe"
    shard_size: str = "5GB"
    old_rope: bool = False
    """Write config.json's rope settings as transformers 4 does."""
    original_format: bool = True
    """Store tensors as released checkpoints have them, not as transformers holds them."""
    n_tokens: int = 48
    """Length of the text that the parity fixtures compute."""
    pooling: str | None = None
    """Write sentence-transformers' files, with this flag: "mean_tokens", "lasttoken"."""
    dense: Sequence[int] = ()
    """Rows of the matrices behind the pooling."""
    packing: str | None = None
    """One of packed_weights.PACKINGS, for weights of fewer bits."""


def _llama(**config: Any) -> dict[str, Any]:
    return {**SMALL, **config}


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **settings}


_LLAMA3 = _rope(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)

# Small enough for a few experts a layer.
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_key_value_heads": 2}
NARROW = {**SMALL, **_SIZES, "num_experts_per_tok": 2}
DENSE_NARROW = {**SMALL, **_SIZES, "pad_token_id": 1}


def _narrow(
    model_class: str,
    *,
    stored: dict[str, Any] | None = None,
    common: dict[str, Any] = NARROW,
    **config: Any,
) -> Recipe:
    """A recipe with few tokens; ``stored`` are arguments of Recipe itself."""
    if "text_config" in config:
        config["text_config"] = {**common, **config["text_config"]}
    else:
        config = {**common, **config}
    return Recipe(model_class, config, **{"n_tokens": 24, **(stored or {})})


RECIPES: dict[str, Recipe] = {
    "llama": Recipe("LlamaForCausalLM", _llama()),
    "llama-gqa-tied": Recipe(
        "LlamaForCausalLM",
        _llama(num_key_value_heads=2, tie_word_embeddings=True, num_hidden_layers=3),
        dtype="float16",
    ),
    "llama-biases": Recipe(
        "LlamaForCausalLM", _llama(attention_bias=True, mlp_bias=True, num_key_value_heads=1)
    ),
    "llama-head-dim": Recipe("LlamaForCausalLM", _llama(head_dim=24, num_key_value_heads=2)),
    "llama-rope-llama3": Recipe("LlamaForCausalLM", _llama(rope_parameters=_LLAMA3)),
    "llama-rope-linear": Recipe(
        "LlamaForCausalLM", _llama(rope_parameters=_rope("linear", factor=4.0)), old_rope=True
    ),
    "llama-rope-yarn": Recipe(
        "LlamaForCausalLM",
        _llama(
            rope_parameters=_rope("yarn", factor=4.0, original_max_position_embeddings=32),
        ),
    ),
    "llama-rope-yarn-factor": Recipe(
        "LlamaForCausalLM",
        _llama(
            rope_parameters=_rope(
                "yarn",
                factor=4.0,
                original_max_position_embeddings=32,
                attention_factor=1.3,
                beta_fast=16.0,
                beta_slow=2.0,
            ),
        ),
        old_rope=True,
    ),
    "llama-sharded-f32": Recipe(
        "LlamaForCausalLM",
        _llama(bos_token_id=1, eos_token_id=2),
        dtype="float32",
        tokenizer="spm",
        shard_size="150KB",
    ),
    "mistral": Recipe(
        "MistralForCausalLM",
        _llama(num_key_value_heads=2, sliding_window=None, head_dim=32),
    ),
    "qwen2": Recipe("Qwen2ForCausalLM", _llama(num_key_value_heads=2)),
    "qwen2-tied": Recipe(
        "Qwen2ForCausalLM",
        # Rows beyond the tokenizer's last token, as Qwen's checkpoints have them.
        _llama(num_key_value_heads=2, tie_word_embeddings=True, vocab_size=N_VOCAB + 32),
    ),
    "bert-masked-lm": Recipe(
        "BertForMaskedLM",
        {
            "vocab_size": N_VOCAB,
            "hidden_size": WIDTH,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "type_vocab_size": 2,
        },
        dtype="float32",
        tokenizer="wordpiece",
    ),
}

RECIPES |= {
    name: _narrow(model_class, stored={"dtype": "float16", **stored}, common=DENSE_NARROW, **config)
    for name, (model_class, config, stored) in DENSE.items()
}
RECIPES |= {
    name: _narrow(model_class, stored={"dtype": "float16", **stored}, **config)
    for name, (model_class, config, stored) in EXPERTS.items()
}
RECIPES |= {
    name: _narrow(model_class, stored={"dtype": "float16", **stored}, common=DENSE_NARROW, **config)
    for name, (model_class, config, stored) in MORE.items()
}


def seed_of(name: str) -> int:
    """The place in the table for the first recipes; later ones depend on nothing but their name."""
    return zlib.crc32(name.encode()) if name in MORE else list(RECIPES).index(name)


def make(recipe: Recipe, folder: Path, *, seed: int = 0) -> None:
    """Write one checkpoint into ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model_class = getattr(transformers, recipe.model_class)
    model = model_class(model_class.config_class(**recipe.config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape) * 0.1
            is_norm = ("norm" in name.lower() or ".ln_" in name) and name.endswith("weight")
            parameter.copy_(1 + noise if is_norm else noise)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn(buffer.shape) * 0.1)
    model.to(getattr(torch, recipe.dtype))
    model.save_pretrained(
        folder, max_shard_size=recipe.shard_size, save_original_format=recipe.original_format
    )
    if recipe.pooling:
        _sentence_transformer(recipe, folder, model.config.hidden_size)
    if recipe.packing:
        PACKINGS[recipe.packing](folder)
    if recipe.old_rope:
        _write_old_rope(folder / "config.json")
    TOKENIZERS[recipe.tokenizer](folder)


def _sentence_transformer(recipe: Recipe, folder: Path, width: int) -> None:
    """modules.json, the pooling and the matrices, as sentence-transformers saves them."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    for i, rows in enumerate(recipe.dense):
        name = f"{i + 2}_Dense"
        modules.append(("Dense", name))
        (folder / name).mkdir()
        weights = {"linear.weight": torch.randn(rows, width) * 0.1}
        safetensors.torch.save_file(weights, folder / name / "model.safetensors")
        settings = {"in_features": width, "out_features": rows, "bias": False}
        activation = "torch.nn.modules.linear.Identity"
        _write_json(folder / name / "config.json", {**settings, "activation_function": activation})
        width = rows
    _write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate([*modules, ("Normalize", "9_Normalize")])
        ],
    )
    (folder / "1_Pooling").mkdir()
    _write_json(folder / "1_Pooling" / "config.json", {f"pooling_mode_{recipe.pooling}": True})


def _write_old_rope(path: Path) -> None:
    config = json.loads(path.read_text())
    settings = config.pop("rope_parameters")
    config["rope_theta"] = settings.pop("rope_theta")
    # The oldest configurations say "type".
    kind = settings.pop("rope_type")
    config["rope_scaling"] = {"type" if kind == "linear" else "rope_type": kind, **settings}
    path.write_text(json.dumps(config, indent=2) + "\n")


def _byte_level_bpe(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    assert tokenizer.get_vocab_size() == N_VOCAB
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin|>",
            "eos_token": "<|end|>",
            "add_bos_token": False,
        },
    )


def _sentencepiece(folder: Path) -> None:
    import sentencepiece

    with tempfile.TemporaryDirectory() as scratch:
        prefix = str(Path(scratch) / "tiny")
        sentencepiece.SentencePieceTrainer.train(
            # With every character of the whole corpus the vocabulary would not hold the bytes.
            sentence_iterator=(text for text in CORPUS if text.isascii()),
            model_prefix=prefix,
            model_type="bpe",
            vocab_size=N_VOCAB,
            byte_fallback=True,
            hard_vocab_limit=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
        (folder / "tokenizer.model").write_bytes(Path(f"{prefix}.model").read_bytes())
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "add_bos_token": True,
            "add_eos_token": False,
            "legacy": False,
        },
    )


def _wordpiece(folder: Path) -> None:
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import BertProcessing

    tokenizer = BertWordPieceTokenizer(lowercase=True)
    # The vocabulary comes out smaller than the model's: rows without a token, as some models have.
    tokenizer.train_from_iterator(CORPUS, vocab_size=N_VOCAB, min_frequency=1, show_progress=False)
    assert tokenizer.get_vocab_size() <= N_VOCAB
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    tokenizer._tokenizer.post_processor = BertProcessing(*ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "unk_token": "[UNK]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
        },
    )


def _roberta(folder: Path) -> None:
    """Byte-level BPE with RoBERTa's special tokens around every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=list(_ROBERTA_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", **_ROBERTA_TOKENS}
    )


def _unigram(folder: Path) -> None:
    """A unigram vocabulary with XLM-RoBERTa's special tokens around every text."""
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Precompiled(_white_space_charsmap())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=N_VOCAB,
        special_tokens=list(_ROBERTA_TOKENS.values()),
        unk_token="<unk>",
        show_progress=False,
    )
    # The trainer finds fewer pieces than were asked for: rows without a token, as in some models.
    tokenizer.train_from_iterator(CORPUS, trainer)
    assert tokenizer.get_vocab_size() <= N_VOCAB
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "XLMRobertaTokenizer", **_ROBERTA_TOKENS},
    )


_WHITE_SPACE = [
    character for character in map(chr, range(0x10000)) if character.isspace() and character != " "
]


def _white_space_charsmap() -> bytes:
    """SentencePiece's compiled form of a normalization that makes every white space a space."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    with tempfile.TemporaryDirectory() as scratch:
        rules, prefix = Path(scratch) / "rules.tsv", str(Path(scratch) / "tiny")
        rules.write_text("".join(f"{ord(space):X}\t20\n" for space in _WHITE_SPACE))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_prefix=prefix,
            vocab_size=100,
            normalization_rule_tsv=str(rules),
            minloglevel=2,
        )
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(Path(f"{prefix}.model").read_bytes())
        return bytes(model.normalizer_spec.precompiled_charsmap)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
TOKENIZERS: dict[str, Callable[[Path], None]] = {
    "bpe": _byte_level_bpe,
    "spm": _sentencepiece,
    "wordpiece": _wordpiece,
    "roberta": _roberta,
    "unigram": _unigram,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all by default")
    parser.add_argument("--out", type=Path, default=Path("checkpoints"))
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(RECIPES))
        return
    unknown = sorted(set(arguments.names) - set(RECIPES))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(RECIPES)}")
    random.seed(0)
    for name in arguments.names or RECIPES:
        make(RECIPES[name], arguments.out / name)
        print(arguments.out / name)


if __name__ == "__main__":
    main()
