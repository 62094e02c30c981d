"""One line for each command to start from; its ``--help`` ends with it."""

from __future__ import annotations

EXAMPLES = {
    "demo": "mofa-gguf demo -q Q4_K_M",
    "convert": "mofa-gguf convert ./my-finetune -q Q4_K_M -o my-finetune.gguf",
    "quantize": "mofa-gguf quantize model-F16.gguf -q Q4_K_M -o model-Q4_K_M.gguf",
    "imatrix": "mofa-gguf imatrix model-F16.gguf text.txt -o weights.gguf",
    "chat": "mofa-gguf chat demo",
    "ask": 'mofa-gguf ask "What is MoFA?" -m demo',
    "serve": "mofa-gguf serve demo --port 8080",
    "embed": 'mofa-gguf embed "first text" "second text" -m demo',
    "batch": "mofa-gguf batch questions.jsonl -o answers.jsonl -m demo",
    "inspect": "mofa-gguf inspect model.gguf --tensors",
    "plan": "mofa-gguf plan model.gguf --n-ctx 8192",
    "pull": "mofa-gguf pull org/name:Q4_K_M",
    "cache": "mofa-gguf cache --remove NAME",
    "providers": "mofa-gguf providers --json",
    "doctor": "mofa-gguf doctor -c mofa.toml",
    "worker": "mofa-gguf worker --host 10.0.0.2 --allow-public",
}
"""The example of each command, by the command's name."""
