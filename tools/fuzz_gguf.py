"""Load thousands of spoilt GGUF files: each is refused in one line, or runs; nothing dies.

    python -m tools.fuzz_gguf [--cases 12000] [--first 0] [--record FILE]

A case takes one of ten small models (see BASES) and spoils bytes, lengths, counts, types, offsets,
hyperparameters, tensors, vocabulary or other metadata, all decided by the case's number. What
comes out goes the way of every model: plan, load, chat template, a few tokens, an embedding; in
child processes that are used until they die. A failure is: a child that dies, an error that is
none of ours or takes more than a line, a case that computes for over 10 s, more than 512 MB of
memory beyond the start's.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.support.tiny_gguf import TinyLlama, TinyVocab, write_tiny_llama
from tools.fuzz_runs import Bounds, RunCase, Tally, run_in_children
from tools.gguf_spoilers import spoil

PARITY = Path(__file__).resolve().parent.parent / "tests" / "data" / "parity"
BASES = (
    *("llama", "bert-masked-lm", "gemma3", "mixtral", "mamba", "xlm-roberta", "spm", "qwen3"),
    *("gpt2", "phi3"),
)
BOUNDS = Bounds(passed="loaded", seconds=10.0, n_bytes=512 * 2**20)
ADDRESS_SPACE = 6 * 2**30
"""A case that asks for more dies of it, which counts as a failure."""
_AT_ONCE = 500
"""Cases between two records of a long campaign."""


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


def _set_up(scratch: Path) -> RunCase:
    """Bound what the child may take, send what the libraries write to a file, warm up."""
    os.environ["GGML_NO_BACKTRACE"] = "1"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    log = os.open(scratch / "stderr", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(log, 2)
    bases = [scratch / f"{name}.gguf" for name in BASES]
    use(bases[0])
    return functools.partial(run_case, bases=bases, path=scratch / "case.gguf")


def campaign(cases: Iterable[int], *, say: bool = False) -> Tally:
    """Run the cases in child processes; a child that hangs or dies costs one case."""
    with tempfile.TemporaryDirectory(prefix="mofa-gguf-fuzz-") as name:
        scratch = Path(name)
        make_bases(scratch)
        bounds = replace(BOUNDS, log=scratch / "stderr")
        return run_in_children(cases, functools.partial(_set_up, scratch), bounds, say=say)


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
    return tally.show("loaded and ran")


if __name__ == "__main__":
    sys.exit(main())
