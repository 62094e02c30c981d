"""Chat templates of a checkpoint -> ``tokenizer.chat_template`` and its named siblings.

transformers keeps them in chat_template.jinja and additional_chat_templates/*.jinja, formerly in
tokenizer_config.json (one text, or a list of named ones), processors in chat_template.json; a
.jinja file wins over the others, as it does there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer.files import MAX_TEMPLATE_BYTES, read_json, read_text
from mofa_gguf.convert.tokenizer.vocabulary import require_utf8

_DEFAULT = "default"
_EXTRA_FOLDER = "additional_chat_templates"
_MAX_TEMPLATES = 64


def read_chat_templates(folder: Path, tokenizer_config: Mapping[str, object]) -> dict[str, str]:
    """Templates by name; the plain one is called "default". Raises TokenizerError."""
    templates = _from_jinja_files(folder)
    if templates:
        return templates
    configured = tokenizer_config.get("chat_template")
    if configured is not None:
        return _from_value(configured, folder / "tokenizer_config.json")
    path = folder / "chat_template.json"
    alone = read_json(folder, path.name, max_bytes=MAX_TEMPLATE_BYTES).get("chat_template")
    return {} if alone is None else _from_value(alone, path)


def chat_template_metadata(templates: Mapping[str, str]) -> Metadata:
    """The GGUF keys; names keep only ASCII letters and digits, as in llama.cpp's converter."""
    data = Metadata()
    names: list[str] = []
    for name, template in templates.items():
        if name == _DEFAULT:
            continue
        safe = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
        if safe and safe not in names:
            names.append(safe)
            data.string(f"tokenizer.chat_template.{safe}", template)
    if names:
        data.strings("tokenizer.chat_templates", names)
    if _DEFAULT in templates:
        data.string("tokenizer.chat_template", templates[_DEFAULT])
    return data


def _from_jinja_files(folder: Path) -> dict[str, str]:
    templates: dict[str, str] = {}
    default = read_text(folder, "chat_template.jinja", max_bytes=MAX_TEMPLATE_BYTES)
    if default is not None:
        templates[_DEFAULT] = default
    extra = folder / _EXTRA_FOLDER
    try:
        paths = sorted(extra.glob("*.jinja"))[:_MAX_TEMPLATES] if extra.is_dir() else []
    except OSError as error:
        raise TokenizerError(f"{extra}: cannot be read ({error.strerror or error})") from error
    for path in paths:
        text = read_text(extra, path.name, max_bytes=MAX_TEMPLATE_BYTES)
        if text is not None:
            templates[path.stem] = text
    return templates


def _from_value(value: object, path: Path) -> dict[str, str]:
    pairs: list[tuple[object, object]]
    if isinstance(value, str):
        pairs = [(_DEFAULT, value)]
    elif isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        pairs = [(entry.get("name"), entry.get("template")) for entry in value]
    else:
        raise TokenizerError(f"{path}: chat_template is neither a text nor a list of named texts")
    templates: dict[str, str] = {}
    for name, template in pairs[:_MAX_TEMPLATES]:
        if not isinstance(name, str) or not isinstance(template, str):
            raise TokenizerError(f"{path}: a chat template needs a name and a text")
        require_utf8(template, f"{path}: the chat template")
        templates[name] = template
    return templates
