"""Convert the checkpoints of tools/make_odd_configs.py: computed rightly, or refused by name.

    python -m tools.compare_odd_configs FOLDER [NAME ...]

A failure is a file whose logits are not those of transformers (least cosine at a position 0.9999,
the same top token but for near ties) though the report warns of nothing that it does not say of
"base", too; an error that is no ConversionError; a child that dies.

Of 5,348 checkpoints of 106 recipes (November 2026, transformers 5.23, llama-cpp-python 0.3.36)
3,207 were right, 68 told (windows that llama.cpp has no place for, DeepSeek V2's ranking of
groups) and 2,071 refused. Two failed, both with a norm over a single number, whose sign is all that
is left of it. Found on the way and mended: see tests/convert/test_odd_configs.py.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from pathlib import Path

from tools.fuzz_runs import Bounds, RunCase, run_in_children

BOUNDS = Bounds(passed="right", seconds=30.0, n_bytes=2**31, cases_a_child=500)
LEAST_COSINE = 0.9999
NEAR_TIE = 0.02
"""Of the logits' spread: what llama.cpp's table of GELU may be off by."""


def set_up(folders: list[Path]) -> RunCase:
    """In a child: what runs the case of a number, which is a place among ``folders``."""
    # Here: the parent need not load llama.cpp.
    import numpy as np

    from mofa_gguf.convert import ConversionError, convert
    from mofa_gguf.engine.models.logits import Probe

    scratch = tempfile.TemporaryDirectory()

    @functools.cache
    def usual_warnings(recipe: Path) -> tuple[str, ...]:
        return tuple(convert(recipe / "base", quantization="F32", dry_run=True).warnings)

    def run_case(case: int) -> tuple[str, ...]:
        # Named here, so that the folder lives as long as the cases.
        output, folder = Path(scratch.name) / "model.gguf", folders[case]
        try:
            report = convert(folder, output, "F32", threads=1, verify=False, force=True)
        except ConversionError as error:
            return folder.parent.name, type(error).__name__
        reference = np.load(folder / "reference.npz")
        tokens = reference["tokens"].tolist()
        with Probe(report.output, n_threads=1) as probe:
            if "logits" in reference:
                found, expected = probe.logits(tokens), reference["logits"]
            else:
                found, expected = probe.embedding(tokens)[None], reference["embedding"][None]
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosine = ((found * expected).sum(axis=1) / lengths).min()
        same = (found.argmax(axis=1) == expected.argmax(axis=1)).all()
        close = np.abs(found - expected).max() < NEAR_TIE * expected.std()
        if cosine >= LEAST_COSINE and (same or close):
            return folder.parent.name, BOUNDS.passed
        for warning in report.warnings:
            if warning not in usual_warnings(folder.parent):
                return folder.parent.name, f"warned of: {warning}"
        raise AssertionError(f"{folder}: least cosine {cosine:.6f}, and not a word of it")

    return run_case


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which recipes; all by default")
    arguments = parser.parse_args()
    folders = [
        path.parent
        for path in sorted(arguments.folder.glob("*/*/reference.npz"))
        if not arguments.names or path.parts[-3] in arguments.names
    ]
    tally = run_in_children(
        range(len(folders)), functools.partial(set_up, folders), BOUNDS, say=True
    )
    return tally.show("right")


if __name__ == "__main__":
    sys.exit(main())
