"""Convert checkpoints with llama.cpp's own converter, for tools/compare_with_peer.py.

    python tools/peer_convert.py LLAMA_CPP_FOLDER OUT CHECKPOINT...

Runs in an environment with torch and transformers. The vocabulary is replaced by a made-up one:
the random checkpoints' tokenizers are none that llama.cpp's converter knows, and only what the
families do is compared.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

# What has been seen to stop it; each is a finding.
FAILURES = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def main(llama_cpp: Path, out: Path, checkpoints: list[Path]) -> None:
    """Write ``out``/NAME.gguf for every checkpoint, in F32; failures go to ``out``/NAME.txt."""
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    import gguf
    from conversion import get_model_class
    from conversion.base import ModelBase, ModelType, get_model_architecture

    logging.disable(logging.WARNING)

    def set_vocab(self: Any) -> None:
        self.gguf_writer.add_tokenizer_model("gpt2")
        self.gguf_writer.add_tokenizer_pre("gpt-2")
        self.gguf_writer.add_token_list([f"t{i}" for i in range(self.hparams["vocab_size"])])

    out.mkdir(parents=True, exist_ok=True)
    for folder in checkpoints:
        try:
            hparams = ModelBase.load_hparams(folder, False)
            family = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
            family.set_vocab = set_vocab
            family(folder, gguf.LlamaFileType.ALL_F32, out / f"{folder.name}.gguf").write()
        except FAILURES as error:
            (out / f"{folder.name}.txt").write_text(f"{type(error).__name__}: {error}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
