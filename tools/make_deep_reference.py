"""Make tests/data/gemma3n_deep.npz: logits of a Gemma 3n that shares keys between layers.

    python tools/make_deep_reference.py

The checkpoint is made from tests/data/parity/gemma3n each time (tests/support/deep_gemma3n.py):
with so many layers it would be too large to store. Needs torch and transformers.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.convert.makers import changed_fixture  # noqa: E402
from tests.support.deep_gemma3n import deepened, deeper  # noqa: E402

N_TOKENS = 16


def main() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    tokens = np.random.default_rng(0).integers(8, 320, size=N_TOKENS)
    tokens[::3] %= 32  # Those that have a row for each layer.
    with tempfile.TemporaryDirectory() as scratch:
        folder = changed_fixture("gemma3n", Path(scratch), deeper, tensors=deepened)
        model = transformers.Gemma3nForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens)[None]).logits[0].numpy()
    path = ROOT / "tests" / "data" / "gemma3n_deep.npz"
    np.savez_compressed(path, tokens=tokens.astype(np.int32), logits=logits)


if __name__ == "__main__":
    main()
