"""Load thousands of spoilt GGUF files: each is refused in one line, or runs; nothing dies.

    python tools/fuzz_gguf.py [--cases 12000] [--first 0] [--record FILE]

A case takes one of ten small models (see BASES) and spoils bytes, lengths, counts, types, offsets,
hyperparameters, tensors, vocabulary or other metadata, all decided by the case's number. What
comes out goes the way of every model: plan, load, chat template, a few tokens, an embedding; in
child processes that are used until they die. A failure is: a child that dies, an error that is
none of ours or takes more than a line, a case that computes for over 10 s, more than 512 MB of
memory beyond the start's.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import multiprocessing
import os
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from tests.support.tiny_gguf import TinyLlama, TinyVocab, write_tiny_llama
from tools.gguf_parts import ARRAY, FORMS, STRING, Pair, Parts, Tensor, take_apart

PARITY = Path(__file__).resolve().parent.parent / "tests" / "data" / "parity"
BASES = (
    *("llama", "bert-masked-lm", "gemma3", "mixtral", "mamba", "xlm-roberta", "spm", "qwen3"),
    *("gpt2", "phi3"),
)
LIMIT_S = 10.0
LIMIT_BYTES = 512 * 2**20
ADDRESS_SPACE = 6 * 2**30
"""A case that asks for more dies of it, which counts as a failure."""
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 5, 7, 31, 33, 255, 256, 257, 2**15, 2**16, 10**6, 2**31 - 1, 2**31, 2**32),
    *(2**32 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63)),
    *(0.0, -0.0, 0.5, 1e-45, 1e38, -1.5, float("inf"), float("-inf"), float("nan")),
)
ARCHITECTURES = (
    *("llama", "llama4", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3"),
    *("bert", "nomic-bert", "jina-bert-v2", "modern-bert", "mamba", "mamba2", "jamba", "phi3"),
    *("deepseek2", "gpt2", "falcon", "bloom", "mpt", "rwkv6", "rwkv7", "arwkv7", "t5", "t5encoder"),
    *("clip", "wavtokenizer-dec", "gpt-oss", "lfm2", "granitehybrid", "qwen3next", "minicpm3"),
    *("no-such", "", "x" * 300, "\0", "plamo2", "chatglm", "baichuan", "starcoder", "olmo2"),
)
WORDS = (b"", b"a", b"\0", b"a\0b", b" ", b"\n", b"\xff\xfe", b"<0x", b"<0xZZ>", b"x" * 5000)
_AT_ONCE = 500
"""Cases between two records of a long campaign."""
Random = random.Random


@dataclass
class Tally:
    """What became of the cases."""

    n_cases: int = 0
    n_loaded: int = 0
    n_refused: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    n_bytes_grown: int = 0
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Count another campaign's cases, too."""
        self.n_cases += other.n_cases
        self.n_loaded += other.n_loaded
        self.n_refused += other.n_refused
        self.refusals += other.refusals
        self.failures += other.failures
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.n_bytes_grown = max(self.n_bytes_grown, other.n_bytes_grown)
        self.seconds += other.seconds


# --- spoiling -------------------------------------------------------------------------------------


def number_near(value: Any, dice: Random) -> Any:
    """Near the value, or far away from it."""
    if not isinstance(value, int | float) or dice.random() < 0.5:
        return dice.choice(NUMBERS)
    if isinstance(value, float):
        return dice.choice([-value, value * 1e30, value / 1e30, 0.0, value * 2])
    return dice.choice(
        [value + 1, value - 1, value * 2, value // 2, -value, value * 3, value << 16]
    )


def spoil_hyperparameter(parts: Parts, dice: Random) -> None:
    """A number of the architecture's own, or one that was not there."""
    own = [pair for pair in parts.pairs if not pair.key.startswith((b"general", b"tokenizer"))]
    if not own:
        return
    pair = dice.choice(own)
    if dice.random() < 0.2:
        name = dice.choice(KEYS)
        prefix = pair.key.split(b".")[0].decode(errors="replace")
        kind = dice.choice([4, 4, 5, 6, 10])
        if dice.random() < 0.25:
            n_values = dice.choice([0, 1, 2, 3, 4, 512, 600])
            values = [dice.choice(NUMBERS) for _ in range(n_values)]
            parts.set(f"{prefix}.{name}", ARRAY, values, kind)
        else:
            parts.set(f"{prefix}.{name}", kind, dice.choice(NUMBERS))
    elif isinstance(pair.value, list):
        if pair.value and dice.random() < 0.6:
            at = dice.randrange(len(pair.value))
            pair.value = [*pair.value]
            pair.value[at] = number_near(pair.value[at], dice)
        else:
            pair.value = pair.value[: dice.randrange(len(pair.value) + 1)] or [0] * 600
    elif isinstance(pair.value, bytes):
        pair.value = dice.choice([*WORDS, b"none", b"linear", b"yarn", b"longrope"])
    else:
        pair.value = number_near(pair.value, dice)


def spoil_key(parts: Parts, dice: Random) -> None:
    """An entry gone, twice, or under another name."""
    pair = dice.choice(parts.pairs)
    kind = dice.randrange(3)
    if kind == 0:
        parts.pairs.remove(pair)
    elif kind == 1:
        parts.pairs.append(copy.copy(pair))
    else:
        pair.key = dice.choice([pair.key + b"x", pair.key.upper(), b"", b"x" * 70_000, b"\xff"])


def spoil_type(parts: Parts, dice: Random) -> None:
    """A value as another type."""
    pair = dice.choice(parts.pairs)
    types = (*FORMS, STRING, 13, 255, 2**32 - 1)
    if pair.type == ARRAY and dice.random() < 0.7:
        pair.element = dice.choice([*types, ARRAY])
    elif pair.type == ARRAY:
        pair.type, pair.value = STRING, b"x"
    elif dice.random() < 0.3:
        pair.value = [pair.value] * dice.choice([0, 1, 2, 5, 1000])
        pair.type, pair.element = ARRAY, pair.type
    else:
        pair.type = dice.choice(types)


def spoil_counts(parts: Parts, dice: Random) -> None:
    """What the header says of how much there is."""
    lie = dice.choice([0, 1, 2, 2**16, 2**31, 2**32, 2**60, 2**63, 2**64 - 1])
    if dice.random() < 0.5:
        parts.n_pairs = dice.choice([lie, len(parts.pairs) - 1, len(parts.pairs) + 1])
    else:
        parts.n_tensors = dice.choice([lie, len(parts.tensors) - 1, len(parts.tensors) + 1])


def spoil_version(parts: Parts, dice: Random) -> None:
    """Magic number and version."""
    if dice.random() < 0.5:
        parts.version = dice.choice([0, 1, 2, 4, 3 << 24, 2**32 - 1])
    else:
        parts.magic = dice.choice([b"GGML", b"ggjt", b"tjgg", b"\0\0\0\0", b"GGUf", b"PK\3\4"])


def spoil_tensor(parts: Parts, dice: Random) -> None:
    """A tensor's shape or type, with data to match; or its name, or the tensor itself."""
    tensor = dice.choice(parts.tensors)
    kind = dice.random()
    if kind < 0.35:
        tensor.type = dice.choice(
            [0, 1, 2, 3, 6, 8, 10, 12, 14, 16, 20, 24, 26, 28, 30, 34, 39, 40]
        )
        tensor.refill()
    elif kind < 0.6:
        at = dice.randrange(len(tensor.shape) or 1)
        if tensor.shape:
            tensor.shape[at] = abs(int(_whole(number_near(tensor.shape[at], dice)))) % 2**64
        tensor.refill()
    elif kind < 0.7:
        tensor.shape = dice.choice(
            [tensor.shape[::-1], [*tensor.shape, 1, 2], tensor.shape[:1], []]
        )
        tensor.refill()
    elif kind < 0.8:
        parts.tensors.remove(tensor)
    elif kind < 0.9:
        other = dice.choice(parts.tensors)
        tensor.name, other.name = other.name, tensor.name
    else:
        extra = dice.choice([b"", b"blk.99.attn_q.weight", b"x", tensor.name, b"y" * 64, b"a\0b"])
        parts.tensors.append(Tensor(extra, [*tensor.shape], tensor.type, tensor.data))


def spoil_offsets(parts: Parts, dice: Random) -> None:
    """Where a tensor is said to lie, its type or its number of dimensions, and nothing else."""
    tensor = dice.choice(parts.tensors)
    kind = dice.randrange(3)
    if kind == 0:
        tensor.offset = dice.choice([0, 1, 32, 2**20, 2**40, 2**63, 2**64 - 32, len(tensor.data)])
    elif kind == 1:
        tensor.type = dice.choice([*range(45), 255, 2**31, 2**32 - 1])
    else:
        tensor.shape = tensor.shape + [1] * dice.choice([1, 2, 3, 4, 8])


def spoil_values(parts: Parts, dice: Random) -> None:
    """Weights that are no numbers, or absurd ones."""
    tensor = dice.choice(parts.tensors)
    fill = dice.choice([b"\xff\xff\xff\x7f", b"\0\0\x80\x7f", b"\0\0\0\0", b"\xff\x7f\x7f\x7f"])
    tensor.data = (fill * (len(tensor.data) // 4 + 1))[: len(tensor.data)]


def spoil_vocabulary(parts: Parts, dice: Random) -> None:
    """Tokens, their types and scores, merges, ids of special tokens."""
    lists = [p for p in parts.pairs if p.key.startswith(b"tokenizer.") and p.type == ARRAY]
    ids = [p for p in parts.pairs if p.key.startswith(b"tokenizer.") and p.type in (4, 5, 7)]
    kind = dice.random()
    if kind < 0.6 and lists:
        pair = dice.choice(lists)
        pair.value = [*pair.value]
        for _ in range(dice.choice([1, 1, 3, 300])):
            _spoil_list(pair, dice)
    elif kind < 0.8 and ids:
        pair = dice.choice(ids)
        pair.value = number_near(pair.value, dice)
    elif kind < 0.9:
        names = (
            "llama",
            "gpt2",
            "bert",
            "t5",
            "rwkv",
            "plamo2",
            "none",
            "no_vocab",
            "test",
            "x",
            "",
        )
        parts.set("tokenizer.ggml.model", STRING, dice.choice(names).encode())
    else:
        names = (
            "default",
            "llama-bpe",
            "qwen2",
            "gpt-4o",
            "kimi-k2",
            "x",
            "",
            "jina-v2-de",
            "gemma4",
        )
        parts.set("tokenizer.ggml.pre", STRING, dice.choice(names).encode())


def _spoil_list(pair: Pair, dice: Random) -> None:
    values = pair.value
    if not values:
        return
    at, kind = dice.randrange(len(values)), dice.random()
    if kind < 0.25:
        values[at] = dice.choice(values)
    elif kind < 0.4:
        del values[at]
    elif kind < 0.5:
        values.append(dice.choice(values))
    elif kind < 0.53:
        del values[at:]
    elif isinstance(values[at], bytes):
        values[at] = dice.choice([*WORDS, values[at] + b"x", values[at][:-1]])
    elif pair.element in (4, 5):
        values[at] = dice.choice([*range(8), -1, 2**31 - 1])
    else:
        values[at] = number_near(values[at], dice)


def spoil_metadata(parts: Parts, dice: Random) -> None:
    """Architecture, alignment, parts of a set, chat template, fine print."""
    kind = dice.randrange(6)
    if kind == 0:
        _rename_architecture(parts, dice.choice(ARCHITECTURES).encode(errors="replace"))
    elif kind == 1:
        parts.set("general.alignment", dice.choice([4, 4, 5, 10]), dice.choice(NUMBERS))
    elif kind == 2:
        for name in ("split.no", "split.count", "split.tensors.count"):
            if dice.random() < 0.7:
                parts.set(name, dice.choice([2, 2, 4, 5]), dice.choice([0, 1, 2, 65535, -1]))
    elif kind == 3:
        parts.set("tokenizer.chat_template", STRING, dice.choice(TEMPLATES))
    elif kind == 4:
        parts.set("general.type", STRING, dice.choice([b"adapter", b"mmproj", b"imatrix", b""]))
    else:
        name = dice.choice(["general.name", "general.file_type", "general.quantization_version"])
        parts.set(name, dice.choice([STRING, 4]), dice.choice([*WORDS, 2**31]))


def _rename_architecture(parts: Parts, name: bytes) -> None:
    """Another architecture; half of its hyperparameters come along by their position."""
    before = parts.pair("general.architecture").value
    if not isinstance(before, bytes):  # spoilt already
        return
    parts.pair("general.architecture").value = name
    for pair in parts.pairs:
        if pair.key.startswith(before + b"."):
            pair.key = name + pair.key[len(before) :]


def spoil_bytes(data: bytes, end: int, dice: Random) -> bytes:
    """Bytes before ``end`` changed, taken out, put in or cut off."""
    out = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        at = dice.randrange(max(1, min(end, len(out))))
        kind = dice.randrange(6)
        if kind == 0:
            out[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            out[at] = dice.choice([0, 1, 127, 128, 255])
        elif kind == 2:
            del out[at : at + dice.choice([1, 4, 8, 100])]
        elif kind == 3:
            out[at:at] = dice.randbytes(dice.choice([1, 4, 8]))
        elif kind == 4:
            number = dice.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(data)])
            out[at : at + 8] = struct.pack("<Q", number)
        elif dice.random() < 0.3:
            del out[at:]
        if not out:
            return bytes(out)
    return bytes(out)


def _whole(value: Any) -> int:
    return int(value) if value == value and abs(value) < 1e30 else 2**63


KEYS = (
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "expert_count"),
    *("attention.value_length", "attention.sliding_window", "attention.causal", "pooling_type"),
    *("attention.sliding_window_pattern", "expert_used_count", "expert_group_count", "vocab_size"),
    *("expert_group_used_count", "expert_shared_count", "leading_dense_block_count", "rope.scale"),
    *("nextn_predict_layers", "rope.dimension_count", "rope.dimension_sections", "rope.freq_base"),
    *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"),
    *("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "ssm.conv_kernel"),
    *("ssm.state_size", "ssm.inner_size", "ssm.time_step_rank", "ssm.group_count"),
    *("embedding_length_out", "feed_forward_length", "expert_feed_forward_length", "block_count"),
    *("attention.scale", "attn_logit_softcapping", "final_logit_softcapping", "logit_scale"),
    *("attention.shared_kv_layers", "attention.max_alibi_bias", "attention.clamp_kqv"),
    *("expert_gating_func", "expert_weights_scale", "expert_weights_norm", "token_shift_count"),
    *("attention.temperature_length", "attention.output_scale", "router_layer"),
    *("rope.scaling.yarn_ext_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.attn_factor"),
    *("attention.indexer.head_count", "n_deepstack_layers", "swin_norm", "use_parallel_residual"),
    *("interleave_moe_layer_step", "moe_every_n_layers", "full_attention_interval"),
    *("attention.group_norm_groups", "decoder_block_count"),
)  # fmt: skip
TEMPLATES = (
    *(b"", b"{{", b"{% for x in range(10**9) %}a{% endfor %}", b"{{ 'a' * 10**9 }}", b"\xff\xfe"),
    *(b"{{ messages[0].__class__.__mro__ }}", b"{{ raise_exception('no') }}", b"x" * 3_000_000),
    *(b"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", b"(" * 5000, b"{{" + b"(" * 5000),
    *(b"{{ messages[9].content }}", b"{{ ('a' * 50000) | join(',') }}", b"{% include 'x' %}"),
)
SPOILERS: tuple[Callable[[Parts, Random], None], ...] = (
    *(spoil_hyperparameter, spoil_hyperparameter, spoil_hyperparameter, spoil_hyperparameter),
    *(spoil_tensor, spoil_tensor, spoil_tensor, spoil_vocabulary, spoil_vocabulary),
    *(spoil_vocabulary, spoil_metadata, spoil_type, spoil_key, spoil_counts, spoil_version),
    *(spoil_offsets, spoil_values),
)


@lru_cache(maxsize=len(BASES))
def base_parts(path: Path) -> Parts:
    """The parts of a base model."""
    return take_apart(path)


def spoil(base: Path, case: int) -> tuple[str, bytes]:
    """(what was spoilt, the bytes of the file), decided by the case's number."""
    dice = random.Random(case)
    if dice.random() < 0.15:
        data = base.read_bytes()
        parts = base_parts(base)
        end = len(data) - sum(len(t.data) for t in parts.tensors)
        return "bytes", spoil_bytes(data, end if dice.random() < 0.8 else len(data), dice)
    parts = copy.deepcopy(base_parts(base))
    chosen = [dice.choice(SPOILERS) for _ in range(dice.choice([1, 1, 1, 1, 2, 3]))]
    for each in chosen:
        if parts.pairs and parts.tensors:
            with contextlib.suppress(KeyError):
                each(parts, dice)
    return chosen[0].__name__.removeprefix("spoil_"), parts.data()


# --- running --------------------------------------------------------------------------------------


def make_bases(folder: Path) -> list[Path]:
    """The base models, converted."""
    from mofa_gguf.convert import convert

    made = []
    for name in BASES:
        path = folder / f"{name}.gguf"
        if name == "spm":
            write_tiny_llama(path, TinyLlama(vocab=sentencepiece_vocab()))
        else:
            convert(PARITY / name, path, "F32", threads=1, verify=False)
        made.append(path)
    return made


def sentencepiece_vocab() -> TinyVocab:
    """SentencePiece's kind, with the 256 byte tokens and some letters, which it can merge."""
    words = ["\u2581", "a", "b", "ab", "\u2581ab", "x", "!", "\u2581x"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    types = [2, 3, 3, *[6] * 256, *[1] * len(words)]
    scores = [0.0] * 259 + [-float(n) for n in range(len(words))]
    return TinyVocab("llama", tokens, types, bos=1, eos=2, pre="default", scores=scores)


def use(path: Path) -> None:
    """Load a file and use it as a provider does. Raises the package's own errors."""
    from mofa_gguf.contract import ChatMessage, Role
    from mofa_gguf.engine.options import EngineOptions
    from mofa_gguf.engine.requests.request import GenerationRequest
    from mofa_gguf.engine.requests.sampling import SamplingOptions
    from mofa_gguf.provider.loaded import LoadedModel
    from mofa_gguf.settings import GGUFConfig
    from mofa_gguf.store import ResolvedModel

    options = EngineOptions(
        n_ctx=64, n_threads=1, n_threads_batch=1, n_batch=64, max_parallel=2, probe="auto"
    )
    config = GGUFConfig(model=str(path), embedding_overflow="truncate")
    loaded = LoadedModel.load(config, ResolvedModel(path, "gguf", str(path)), options)
    try:
        if loaded.engine.can_generate:
            message = ChatMessage(role=Role.USER, content="Grüße, 你好 \0 <s> 42!")
            tokens = loaded.prompt([message], None, {}).tokens[:40] or [0]
            sampling = SamplingOptions(temperature=0)
            for _event in loaded.engine.submit(
                GenerationRequest(tokens, sampling, max_tokens=3, deadline_s=8)
            ):
                pass
        loaded.engine.embed([loaded.embedding_tokens("Grüße, 你好 \0 x!")]).result(timeout=8)
    finally:
        loaded.close()


def run_case(case: int, bases: list[Path], path: Path) -> tuple[str, str, str]:
    """(what was spoilt, the error's class or "loaded", the error). Whatever is not ours comes out.

    AssertionError for an error of more than a line.
    """
    from mofa_gguf.chat import TemplateError
    from mofa_gguf.contract import LLMError
    from mofa_gguf.engine.errors import EngineError

    what, data = spoil(bases[case % len(bases)], case)
    path.write_bytes(data)
    try:
        use(path)
    except (EngineError, LLMError, TemplateError) as error:
        text = str(error)
        assert text.strip(), "no reason"
        assert "\n" not in text, f"more than a line: {text[:2000]!r}"
        assert len(text) < 1000, f"a long line: {text[:2000]!r}"
        return what, type(error).__name__, text.replace(str(path), "FILE")
    return what, "loaded", ""


def _child(cases: list[int], scratch: str, report: Connection) -> None:
    """Run cases one after the other, telling before and after each."""
    os.environ["GGML_NO_BACKTRACE"] = "1"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    log = os.open(Path(scratch) / "stderr", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(log, 2)
    bases = [Path(scratch) / f"{name}.gguf" for name in BASES]
    use(bases[0])
    grown_from = _peak()
    for case in cases:
        report.send(("begin", case, time.process_time()))
        try:
            outcome: Any = run_case(case, bases, Path(scratch) / "case.gguf")
            message = ("done", case, outcome)
        except BaseException:  # noqa: BLE001 - whatever is not expected is a finding
            message = ("failed", case, traceback.format_exc(limit=-4)[:2000])
        report.send((*message, _peak() - grown_from, time.process_time()))
    report.send(("end", None, None))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def campaign(cases: Iterable[int], *, say: bool = False) -> Tally:
    """Run the cases in child processes; a child that hangs or dies costs one case."""
    tally, waiting = Tally(), list(cases)
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="mofa-gguf-fuzz-") as scratch:
        make_bases(Path(scratch))
        while waiting:
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(
                target=_child, args=(list(waiting), scratch, theirs), daemon=True
            )
            child.start()
            theirs.close()
            _follow(child, ours, waiting, tally, Path(scratch) / "stderr", say=say)
    tally.seconds = time.perf_counter() - began
    return tally


def _follow(
    child: Any, reports: Connection, waiting: list[int], tally: Tally, log: Path, *, say: bool
) -> None:
    """Listen to one child until it ends, dies or hangs; takes what it did off ``waiting``."""
    current, began = None, 0.0
    while True:
        try:
            if not _wait(child, reports, began):
                tally.failures.append(f"case {current}: over {LIMIT_S:g} s")
                break
            message = reports.recv()
        except (EOFError, psutil.NoSuchProcess):
            child.join()
            last = log.read_text(errors="replace").strip()[-300:] if log.exists() else ""
            tally.failures.append(f"case {current}: the process died ({child.exitcode}): {last}")
            break
        if message[0] == "end":
            child.join()
            return
        if message[0] == "begin":
            current, began = message[1], message[2]
            continue
        waiting.remove(current)
        _count(tally, message, message[-1] - began)
        if say and message[0] == "failed":
            print(tally.failures[-1], flush=True)
        if say and tally.n_cases % 500 == 0:
            print(f"{tally.n_cases} cases, {len(tally.failures)} failures", flush=True)
    if say:
        print(tally.failures[-1], flush=True)
    child.kill()
    child.join()
    if current is None:
        raise RuntimeError(f"a child cannot start: {tally.failures[-1]}")
    if current in waiting:
        waiting.remove(current)
        tally.n_cases += 1


def _wait(child: Any, reports: Connection, began: float) -> bool:
    """Whether the child says something before it has computed, or slept, for too long.

    Waiting for its turn on a busy machine does not count.
    """
    slept = 0
    while not reports.poll(1.0):
        process = psutil.Process(child.pid)
        times = process.cpu_times()
        slept = 0 if _wants_to_run(process) else slept + 1
        if times.user + times.system - began > LIMIT_S or slept > 3 * LIMIT_S:
            return False
    return True


def _wants_to_run(process: psutil.Process) -> bool:
    """Whether the process, or the one that probes a file for it, has something to compute."""
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP):
                return True
    return False


def _count(tally: Tally, message: Any, seconds: float) -> None:
    kind, case, outcome, grown, _ = message
    tally.n_cases += 1
    tally.slowest_s = max(tally.slowest_s, seconds)
    tally.n_bytes_grown = max(tally.n_bytes_grown, grown)
    if kind == "failed":
        tally.failures.append(f"case {case}: {outcome}")
    elif outcome[1] == "loaded":
        tally.n_loaded += 1
        tally.refusals[f"{outcome[0]}: loaded"] += 1
    else:
        tally.n_refused += 1
        tally.refusals[f"{outcome[0]}: {outcome[1]}"] += 1
    if grown > LIMIT_BYTES:
        tally.failures.append(f"case {case}: {grown} bytes of memory")
    elif seconds > LIMIT_S:
        tally.failures.append(f"case {case}: {seconds:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=12_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--record", type=Path, help="where to write the figures (JSON)")
    arguments = parser.parse_args()
    tally = Tally()
    end = arguments.first + arguments.cases
    for first in range(arguments.first, end, _AT_ONCE):
        tally.add(campaign(range(first, min(end, first + _AT_ONCE)), say=True))
        if arguments.record:
            arguments.record.write_text(json.dumps(vars(tally), indent=2) + "\n")
    for failure in tally.failures:
        print(failure)
    print(
        f"{tally.n_cases} cases in {tally.seconds:.0f} s: {tally.n_loaded} loaded and ran, "
        f"{tally.n_refused} refused, {len(tally.failures)} failures; slowest "
        f"{tally.slowest_s:.2f} s, memory grew by {tally.n_bytes_grown / 1e6:.0f} MB"
    )
    for kind, count in tally.refusals.most_common():
        print(f"  {count:5} {kind}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
