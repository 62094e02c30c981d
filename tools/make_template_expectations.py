"""Record what transformers' ``apply_chat_template`` renders, as expectations of tests/chat.

Maintainers only; needs transformers:

    python tools/make_template_expectations.py TEMPLATE_FOLDER tests/data/chat

Every ``*.jinja`` of the folder is rendered for every conversation of ``conversations.json`` in the
output folder; the results go to ``expectations.json.gz`` there: template -> conversation -> text,
or ``{"error": ...}`` where transformers raises. The clock stands still at CLOCK.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, __version__
from transformers.utils import chat_template_utils

CLOCK = datetime(2025, 7, 4, 12, 30, 15)
BOS, EOS = "<s>", "</s>"


class _StandingClock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return CLOCK


def render(
    tokenizer: PreTrainedTokenizerFast, template: str, case: dict[str, Any]
) -> str | dict[str, str]:
    """What transformers renders for one conversation, or its error."""
    try:
        return tokenizer.apply_chat_template(
            case["messages"],
            tools=case.get("tools"),
            chat_template=template,
            add_generation_prompt=case.get("add_generation_prompt", True),
            tokenize=False,
            **case.get("arguments", {}),
        )
    except Exception as error:  # noqa: BLE001 - whatever a template raises is what is recorded
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("templates", type=Path, help="folder with *.jinja files")
    parser.add_argument("output", type=Path, help="folder with conversations.json")
    options = parser.parse_args()

    chat_template_utils.datetime = _StandingClock
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token=BOS, eos_token=EOS
    )
    conversations = json.loads((options.output / "conversations.json").read_text("utf-8"))
    expectations = {
        path.stem: {
            name: render(tokenizer, path.read_text("utf-8"), case)
            for name, case in conversations.items()
        }
        for path in sorted(options.templates.glob("*.jinja"))
    }
    record = {"transformers": __version__, "templates": expectations}
    data = json.dumps(record, ensure_ascii=False, indent=1).encode()
    target = options.output / "expectations.json.gz"
    target.write_bytes(gzip.compress(data, 9, mtime=0))
    n_errors = sum(
        isinstance(text, dict) for case in expectations.values() for text in case.values()
    )
    print(
        f"{target}: {len(expectations)} templates, {len(conversations)} conversations, "
        f"{n_errors} refused, {target.stat().st_size} bytes"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
