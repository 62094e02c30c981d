"""``verify="deep"``: the written file against the F32 weights, written beside it for the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mofa_gguf.convert.comparison import Comparison, compare
from mofa_gguf.convert.errors import VerificationError
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.output import PartialFile, check_space
from mofa_gguf.convert.parts import Part
from mofa_gguf.convert.plan import make_plan
from mofa_gguf.convert.quantizations import quantization_named
from mofa_gguf.convert.report import Check
from mofa_gguf.convert.stages import available_cpus
from mofa_gguf.convert.tokenizer import Vocabulary
from mofa_gguf.convert.writer import Encoding, write_gguf
from mofa_gguf.engine.errors import EngineError

NAME = "comparison with F32"


@dataclass(frozen=True)
class DeepCheck:
    """What the comparison needs, and who hears its result."""

    target: Path
    metadata: Metadata
    model: Model
    vocabulary: Vocabulary
    text: str
    n_threads: int | None
    tell: Callable[[Comparison], None]

    def make_sure_of_space(self, n_bytes: int) -> None:
        """Raise OutputError unless ``n_bytes`` and the F32 file fit on the target's disk."""
        check_space(self.target, n_bytes + self._f32().n_bytes)

    def run(self, path: Path) -> Iterator[Check]:
        """Compare the file at ``path``. The F32 file is gone afterwards, whatever happens.

        Raises VerificationError, OutputError, and what reading the checkpoint raises.
        """
        part = self._f32()
        with PartialFile(part.path) as f32:
            n_threads = self.n_threads or available_cpus()
            with Encoding(part.plan.tensors, n_threads=n_threads) as encoding:
                write_gguf(f32, part, encoding)
            tokens = self.vocabulary.reference.encode(self.text)
            try:
                found = compare(path, f32.path, tokens, n_threads=self.n_threads)
            except EngineError as error:
                raise VerificationError(self.target, NAME, str(error)) from error
        if not found.is_finite:
            raise VerificationError(self.target, NAME, f"is not finite: {found.summary()}")
        self.tell(found)
        yield Check(NAME, True, found.summary())

    def _f32(self) -> Part:
        path = self.target.with_name(f"{self.target.stem}-f32.gguf")
        return Part(path, self.metadata, make_plan(self.model, quantization_named("F32")))
