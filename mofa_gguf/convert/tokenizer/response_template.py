"""How a model's answers are to be taken apart, where tokenizer_config.json says it.

transformers 5 keeps a ``response_template`` (formerly ``response_schema``) beside the chat
template: a JSON object that describes an answer's parts. GGUF has no key for it; it goes into the
file as JSON text under ``tokenizer.response_template`` or ``tokenizer.response_schema``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer.files import MAX_TEMPLATE_BYTES
from mofa_gguf.convert.tokenizer.vocabulary import require_utf8

_NAMES = ("response_template", "response_schema")


def response_template_metadata(tokenizer_config: Mapping[str, object], path: Path) -> Metadata:
    """The keys of those that are there. Raises TokenizerError for what is no JSON object."""
    data = Metadata()
    for name in _NAMES:
        value = tokenizer_config.get(name)
        if value is None:
            continue
        if not isinstance(value, dict):
            raise TokenizerError(f"{path}: {name} is no JSON object")
        text = json.dumps(value, ensure_ascii=False)
        require_utf8(text, f"{path}: {name}")
        if len(text) > MAX_TEMPLATE_BYTES:
            raise TokenizerError(f"{path}: {name} has {len(text)} characters, more than it may")
        data.string(f"tokenizer.{name}", text)
    return data
