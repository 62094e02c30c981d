"""Mutate tokenizer files and build vocabularies of them: a typed error or a conversion, always.

    python tools/fuzz_tokenizers.py --rounds 250 --seed 1

Makes a small tokenizer of every kind, damages one of its files in a random way, and builds the
vocabulary, thousands of times, in worker processes that are watched: a crash, an exception other
than TokenizerError, more than ten seconds of processor time or more memory than a sound file takes
(and a margin) is a finding, printed with the seed that repeats it. Ends with a count for each file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mofa_gguf.convert.errors import TokenizerError  # noqa: E402
from mofa_gguf.convert.tokenizer import build_vocabulary  # noqa: E402
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file  # noqa: E402
from mofa_gguf.engine.errors import EngineError  # noqa: E402
from mofa_gguf.engine.tokens.vocab_file import VocabFile  # noqa: E402
from tests.convert.tokenizer import makers  # noqa: E402
from tests.convert.tokenizer.mutations import mutate_bytes, mutate_json  # noqa: E402

CPU_LIMIT_S = 10.0
WALL_LIMIT_S = 300.0  # a busy machine is no finding
MEMORY_MARGIN_KIB = 400 * 1024
# The tokenizers library keeps up to 2 MB of every tokenizer: a new worker now and then.
ROUNDS_A_WORKER = 100
N_VOCAB = 900

# Name of the case -> the file that is damaged.
CASES = {
    "byte-level": "tokenizer.json",
    "byte-level bytes": "tokenizer.json",
    "wordpiece": "tokenizer.json",
    "unigram": "tokenizer.json",
    "configuration": "tokenizer_config.json",
    "generation": "generation_config.json",
    "added tokens": "added_tokens.json",
    "vocab.txt": "vocab.txt",
    "vocab.json": "vocab.json",
    "merges": "merges.txt",
    "sentencepiece": "tokenizer.model",
    "tekken": "tekken.json",
}
_AS_JSON = {"byte-level", "wordpiece", "unigram", "configuration", "generation", "tekken"}
_AS_JSON |= {"added tokens"}


def make_files(folder: Path) -> dict[str, dict[str, bytes]]:
    """Sound files of every case."""
    byte_level = makers.train_byte_level(makers.gpt2_splitting())
    wordpiece = makers.train_wordpiece()
    makers.train_sentencepiece(folder, kind="bpe")
    model = (folder / "tokenizer.model").read_bytes()
    byte_level.model.save(str(folder))
    vocabulary = wordpiece.get_vocab()
    lines = sorted(vocabulary, key=vocabulary.__getitem__)
    sound = {"tokenizer.json": byte_level.to_str().encode()}
    pair = {name: (folder / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    configuration = {
        "bos_token": "<|begin|>",
        "eos_token": {"content": "<|stop|>"},
        "add_bos_token": True,
        "chat_template": [{"name": "default", "template": "x"}],
        "response_template": {"defaults": {"role": "assistant"}},
        "tokenizer_class": "GPT2Tokenizer",
        "added_tokens_decoder": {"1": {"content": "<|stop|>", "special": True}},
    }
    generation = {"eos_token_id": [1, 2], "temperature": 0.7, "top_k": 20, "do_sample": True}
    added = {"<|user|>": 700, "  ": 701, "<extra>": 702}
    unigram = makers.unigram_json(folder)
    return {
        "byte-level": sound,
        "byte-level bytes": sound,
        "wordpiece": {"tokenizer.json": wordpiece.to_str().encode()},
        "unigram": {"tokenizer.json": unigram.encode()},
        "configuration": {**sound, "tokenizer_config.json": json.dumps(configuration).encode()},
        "generation": {**sound, "generation_config.json": json.dumps(generation).encode()},
        "added tokens": {"tokenizer.model": model, "added_tokens.json": json.dumps(added).encode()},
        "vocab.txt": {"vocab.txt": "\n".join(lines).encode()},
        "vocab.json": pair,
        "merges": pair,
        "sentencepiece": {"tokenizer.model": model},
        "tekken": {"tekken.json": json.dumps(makers.tekken(n_merged=300)).encode()},
    }


def damaged(case: str, sound: dict[str, bytes], seed: str) -> dict[str, bytes]:
    """The case's files, one of them damaged in a way that the seed fixes."""
    rng = random.Random(seed)
    name = CASES[case]
    if case in _AS_JSON:
        value = json.loads(sound[name])
        for _ in range(rng.choice((1, 1, 2))):
            value = mutate_json(value, rng)
        return {**sound, name: json.dumps(value).encode()}
    return {**sound, name: mutate_bytes(sound[name], rng)}


def attempt(files: dict[str, bytes]) -> str:
    """ "error" or "converted". Anything but TokenizerError goes through.

    Twice: as a conversion does it that is not verified, and as one that is.
    """
    kinds = [attempt_once(files, is_read_back=is_read_back) for is_read_back in (False, True)]
    if kinds[0] != kinds[1]:
        raise AssertionError(f"{kinds[0]} before writing, {kinds[1]} when read back")
    return kinds[0]


def attempt_once(files: dict[str, bytes], *, is_read_back: bool) -> str:
    """ "error" or "converted", of one way to build the vocabulary."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        folder = Path(temporary)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        try:
            vocabulary = build_vocabulary(
                folder,
                config={},
                n_vocab=N_VOCAB,
                allow_mismatch=True,
                is_read_back=is_read_back,
            )
            if vocabulary.judge_on is not None:
                path = folder / "vocabulary.gguf"
                write_vocabulary_file(path, vocabulary.metadata(), pre_tokenizer="default")
                with VocabFile(path) as file:
                    vocabulary.judge_on(file.vocab)
        except (TokenizerError, EngineError) as error:
            # The converter says EngineErrors in its own words.
            if not is_read_back and isinstance(error, EngineError):
                raise
            if not str(error) or len(str(error)) > 3000:
                raise AssertionError(f"an error of {len(str(error))} characters") from error
            return "error"
        vocabulary.metadata()
        return "converted"


def worker(pipe: Connection) -> None:
    """Attempts what comes through the pipe and answers: outcome, CPU seconds, peak memory."""
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            files = pipe.recv()
            started = time.process_time()
            try:
                outcome = attempt(files)
            except BaseException as error:  # noqa: BLE001  what comes out is what is looked for
                outcome = f"{type(error).__name__}: {error}"[:300]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            pipe.send((outcome, time.process_time() - started, peak))


class Watched:
    """A worker process that is started anew when it dies or hangs."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=worker, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, files: dict[str, bytes]) -> tuple[str, float, int]:
        """Outcome, seconds of processor time, peak memory in KiB so far."""
        self._pipe.send(files)
        try:
            if self._pipe.poll(WALL_LIMIT_S):
                answer: tuple[str, float, int] = self._pipe.recv()
                return answer
            problem = f"no answer within {WALL_LIMIT_S:.0f} s"
        except EOFError:
            self._process.join()
            problem = f"the process ended with code {self._process.exitcode}"
        self.close()
        self._start()
        return problem, WALL_LIMIT_S, 0

    def renew(self) -> None:
        """Go on with a new process."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def main() -> int:
    """Run the campaign; 1 when there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=250, help="mutations of each case")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--case", choices=sorted(CASES), help="only this one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        sound = make_files(Path(temporary))
    watched = Watched()
    findings = 0
    cases = [options.case] if options.case else list(CASES)
    for case in cases:
        counts: Counter[str] = Counter()
        slowest, usual, most = 0.0, 0, 0
        for n in range(options.rounds):
            if n % ROUNDS_A_WORKER == 0:
                watched.renew()
                first, _, usual = watched.run(sound[case])
                if first != "converted":
                    print(f"{case}: the sound file itself gives {first}")
                    findings += 1
            seed = f"{options.seed}/{case}/{n}"
            outcome, seconds, peak = watched.run(damaged(case, sound[case], seed))
            if seconds > CPU_LIMIT_S and outcome in ("error", "converted"):
                outcome = f"{seconds:.1f} s of processor time"
            slowest, most = max(slowest, seconds), max(most, peak - usual)
            if peak > usual + MEMORY_MARGIN_KIB:
                outcome = f"{peak // 1024} MiB of memory, a sound file takes {usual // 1024}"
                usual = peak
            counts[outcome] += 1
            if outcome not in ("error", "converted"):
                findings += 1
                print(f"FOUND {seed}: {outcome}", flush=True)
        print(
            f"{case}: {counts['converted']} converted, {counts['error']} refused, "
            f"slowest {slowest:.1f} s, memory grew by {most // 1024} MiB",
            flush=True,
        )
    watched.close()
    print(f"{options.rounds * len(cases)} mutations, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
