"""A request's generation parameters, checked, and put together with the defaults.

A parameter comes from the request, else from the provider's config, else from the model's file
(``general.sampling.*``, written by converters from generation_config.json), else from here.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mofa_gguf.contract import ChatCompletionRequest, ConfigError
from mofa_gguf.engine.options import Speculation
from mofa_gguf.engine.requests.sampling import SamplingOptions
from mofa_gguf.engine.structure.grammars import Whitespace
from mofa_gguf.provider.hosted import TIER_PRIORITIES, Tier, without_hosted
from mofa_gguf.quantities import read_seconds

# llama.cpp's own defaults, with MoFA's temperature.
FALLBACK = SamplingOptions(temperature=0.7, top_k=40, top_p=0.95, min_p=0.05)

# Metadata keys of llama.cpp (src/llama-arch.cpp) and the parameter each one sets.
_MODEL_KEYS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.xtc_probability": "xtc_probability",
    "general.sampling.xtc_threshold": "xtc_threshold",
    "general.sampling.penalty_last_n": "repeat_last_n",
    "general.sampling.penalty_repeat": "repeat_penalty",
    "general.sampling.mirostat": "mirostat",
    "general.sampling.mirostat_tau": "mirostat_tau",
    "general.sampling.mirostat_eta": "mirostat_eta",
}
_FROM_REQUEST = (
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "frequency_penalty",
    "presence_penalty",
)

# What a template is given of the conversation itself.
_OF_CONVERSATIONS = ("self", "messages", "tools")

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORT_BUDGETS: dict[Effort, int | None] = {
    "none": 0,
    "minimal": 256,
    "low": 1024,
    "medium": 4096,
    "high": 16_384,
    "xhigh": None,
    "max": None,
}
"""Tokens of reasoning for each of OpenAI's efforts, for templates that know none themselves."""

Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Window = Annotated[int, Field(ge=-1)]
# JSON's keys are text.
TokenId = Annotated[
    Count,
    BeforeValidator(
        lambda key: int(key) if isinstance(key, str) and key.isascii() and key.isdigit() else key
    ),
]
# Lists of JSON, tuples of Python.
Several = Field(strict=False)


class Parameters(BaseModel):
    """Everything a request may say about its generation; None where it is silent.

    As strict as MoFA's own fields: no text or bool for a number, no fraction for a whole one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], Several] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None

    top_k: Count | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    top_n_sigma: float | None = None
    xtc_probability: Share | None = None
    xtc_threshold: Share | None = None
    dynatemp_range: Annotated[float, Field(ge=0)] | None = None
    dynatemp_exponent: Positive | None = None
    repeat_penalty: Positive | None = None
    repeat_last_n: Window | None = None
    dry_multiplier: Annotated[float, Field(ge=0)] | None = None
    dry_base: Annotated[float, Field(ge=1)] | None = None
    dry_allowed_length: Count | None = None
    dry_last_n: Window | None = None
    dry_sequence_breakers: (
        Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Several] | None
    ) = None
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: Positive | None = None
    mirostat_eta: Positive | None = None
    adaptive_target: Annotated[float, Field(ge=-1, le=1)] | None = None
    adaptive_decay: Annotated[float, Field(ge=0, le=0.99)] | None = None
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logit_bias_text: (
        dict[Annotated[str, Field(min_length=1)], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    min_keep: Annotated[int, Field(ge=1)] | None = None

    n: Annotated[int, Field(ge=1, le=16)] = 1
    """How many answers."""
    priority: Annotated[int, Field(ge=-100, le=100)] | None = None
    """Requests of higher priority go first; 0 where nothing is said."""
    service_tier: Tier | None = None
    """OpenAI's names for priorities, see TIER_PRIORITIES; ``priority`` itself counts before it."""
    timeout_s: Positive | None = None
    """Seconds the request may take, in place of the provider's own limit."""
    speculation: Speculation | None = None
    """In place of the provider's setting: "auto", "prompt-lookup", "draft-model" or "off"."""
    keep_alive: Annotated[float, BeforeValidator(read_seconds)] | None = None
    """How long the model stays loaded after this request: seconds, ``5m``, or -1: for ever."""
    min_tokens: Count = 0
    ignore_eos: bool = False
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    regex: str | None = None
    """The whole answer matches this regular expression (the syntax of Rust's regex crate)."""
    lark: str | None = None
    """The whole answer is a text of this grammar (llguidance's variant of Lark's syntax)."""
    gbnf: str | None = None
    """The whole answer is a text of this grammar (llama.cpp's notation)."""
    json_whitespace: Whitespace = "short"
    """White space in constrained JSON: a blank or line break, none ("compact"), or any ("free")."""
    parallel_tool_calls: bool | None = None
    """False: at most one call in an answer. Otherwise as many as the chat template knows."""

    reasoning_budget: Annotated[int, Field(ge=-1)] | None = None
    """Tokens after which reasoning is closed; -1 sets no limit."""
    reasoning_effort: Effort | None = None
    """For the chat template, where it knows efforts; else a budget, see EFFORT_BUDGETS."""
    verbosity: Literal["low", "medium", "high"] | None = None
    """For the chat template. One that knows none can only be "medium", which OpenAI takes for the
    ordinary length."""
    enable_thinking: bool | None = None
    documents: Annotated[list[Any], Several] | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More arguments for the chat template."""

    @property
    def answer_limit(self) -> int | None:
        """``max_tokens`` under either of its names; under both, the smaller obeys both."""
        limits = (self.max_tokens, self.max_completion_tokens)
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def precedence(self) -> int:
        """The place in the queue: ``priority``, or what the service tier stands for."""
        if self.priority is not None:
            return self.priority
        return 0 if self.service_tier is None else TIER_PRIORITIES[self.service_tier]

    @property
    def n_top_logprobs(self) -> int | None:
        """Alternatives to report with each token; None to report nothing.

        Raises ConfigError for alternatives beside logprobs that are refused.
        """
        if self.logprobs is False:
            if self.top_logprobs:
                raise ConfigError(
                    f"top_logprobs = {self.top_logprobs} and logprobs = False contradict; "
                    "send logprobs = True, or neither",
                    field="top_logprobs",
                )
            return None
        if self.top_logprobs is not None:
            return self.top_logprobs
        return 0 if self.logprobs else None

    def template_arguments(self, variables: Collection[str]) -> dict[str, Any]:
        """Arguments for a chat template, which looks at ``variables``, beside messages and tools.

        Raises ConfigError for documents and lengths that the template has no place for, and for
        ``chat_template_kwargs`` that would replace the conversation.
        """
        if self.verbosity in ("low", "high") and "verbosity" not in variables:
            raise ConfigError(
                f"verbosity = {self.verbosity!r}: the model's chat template has no place for it; "
                "say in a message how long the answer should be",
                field="verbosity",
            )
        if self.documents and "documents" not in variables:
            raise ConfigError(
                "the model's chat template has no place for documents; "
                "put them into a message or use a model for retrieval",
                field="documents",
            )
        ours = next((name for name in _OF_CONVERSATIONS if name in self.chat_template_kwargs), None)
        if ours is not None:
            raise ConfigError(
                f"chat_template_kwargs has no place for {ours!r}, which the request's own field "
                "says; send it there",
                field="chat_template_kwargs",
            )
        thinking = self.enable_thinking
        if thinking is None and self.reasoning_effort == "none":
            thinking = False
        knows_thinking = "thinking" in variables and "enable_thinking" not in variables
        given = {
            # DeepSeek's and Granite's name for it.
            "thinking" if knows_thinking else "enable_thinking": thinking,
            "documents": self.documents,
            "reasoning_effort": self.reasoning_effort,
            "verbosity": self.verbosity,
        }
        return {
            **{key: value for key, value in given.items() if value is not None},
            **self.chat_template_kwargs,
        }

    def thinking_budget(self, variables: Collection[str]) -> int | None:
        """Tokens after which reasoning is closed; None for no limit.

        An effort is the template's business where it looks at ``reasoning_effort``.
        """
        if self.reasoning_budget is not None:
            return None if self.reasoning_budget < 0 else self.reasoning_budget
        effort = self.reasoning_effort
        if effort is None or (effort != "none" and "reasoning_effort" in variables):
            return None
        return EFFORT_BUDGETS[effort]


def read_parameters(request: ChatCompletionRequest) -> Parameters:
    """The request's parameters; ConfigError names the first that is unknown or out of range."""
    values = {
        name: value for name in _FROM_REQUEST if (value := getattr(request, name)) is not None
    }
    extra = without_hosted(request.extra)
    try:
        return Parameters.model_validate({**extra, **values})
    except ValidationError as error:
        raise _config_error(error) from error


def sampling_options(
    parameters: Parameters,
    model_metadata: Mapping[str, Any],
    *,
    default_temperature: float | None = None,
    choice: int = 0,
) -> SamplingOptions:
    """The whole set of sampling options of one answer; ``choice`` n of a seeded request is seed+n.

    Mirostat replaces the truncating samplers, as in llama.cpp.
    """
    options = replace(FALLBACK, **_model_defaults(model_metadata))
    if default_temperature is not None:
        options = replace(options, temperature=default_temperature)
    names = {field.name for field in fields(SamplingOptions)}
    given = {
        name: value
        for name, value in parameters
        if name in names and value is not None and name != "seed"
    }
    seed = None if parameters.seed is None else (parameters.seed + choice) % 2**32
    return replace(options, **given, seed=seed)


def _model_defaults(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's file says, as far as it is in range: a file is no authority on that."""
    found: dict[str, Any] = {}
    for key, name in _MODEL_KEYS.items():
        value = metadata.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        try:
            found[name] = getattr(Parameters.model_validate({name: value}, strict=False), name)
        except ValidationError:
            continue
    return found


def _config_error(error: ValidationError) -> ConfigError:
    problem = error.errors()[0]
    field = str(problem["loc"][0]) if problem["loc"] else "request"
    if problem["type"] == "extra_forbidden":
        known = sorted(Parameters.model_fields)
        close = difflib.get_close_matches(field, known, n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        return ConfigError(
            f"there is no generation parameter {field!r:.80}; {hint}docs/agents.md lists all",
            field=field,
            known=known,
        )
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return ConfigError(f"{field} = {_shown(problem['input'])}: {message}", field=field)


def _shown(value: Any) -> str:
    """A value as Python writes it, cut: a request may hold anything, and much of it."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a huge {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
