"""Record what transformers' ``parse_response`` makes of answers, as expectations of tests/chat.

Maintainers only; needs transformers 5:

    python tools/make_response_expectations.py tests/data/chat/responses.json

The cases of that file (a chat template, a response template, a conversation, answers) stay as they
are; every answer gets the prompt and the message anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, __version__


def main() -> int:
    path = Path(sys.argv[1])
    value = json.loads(path.read_text())
    value["transformers"] = __version__
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<s>": 0}, unk_token="<s>"))
    )
    for case in value["cases"]:
        prompt = tokenizer.apply_chat_template(
            case["messages"],
            tools=case.get("tools"),
            chat_template=case["chat_template"],
            add_generation_prompt=True,
            tokenize=False,
        )
        case["prompt"] = prompt
        for answer in case["answers"]:
            answer["message"] = tokenizer.parse_response(
                answer["text"], case["response_template"], prefix=prompt
            )
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
