"""What an answer must look like: from a request to a constraint of the engine.

    tool_choice "required" or by name    calls and nothing else
    response_format, regex, lark, gbnf   that form; with tools, that form or calls
    tool_choice "auto"                   free text, and calls that are valid once one has begun

Reasoning comes first where the prompt has opened it, or where the model's vocabulary has the mark
that opens it; it is free, within its budget.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mofa_gguf.chat import AnswerForms, CallsNotDescribable, ReasoningMarks
from mofa_gguf.contract import (
    ChatCompletionRequest,
    ConfigError,
    ProviderNotSupported,
    SpecificToolChoice,
    Tool,
)
from mofa_gguf.engine.errors import ConstraintError
from mofa_gguf.engine.structure import grammars
from mofa_gguf.engine.structure.answer_plan import AnswerPlan, Reasoning, Trigger
from mofa_gguf.engine.structure.constraint import Constraint, TokenConstraint
from mofa_gguf.engine.structure.grammars import Grammar
from mofa_gguf.engine.structure.schema_check import check_schema
from mofa_gguf.engine.structure.staged import StagedConstraint
from mofa_gguf.provider.parameters import Parameters
from mofa_gguf.provider.tool_choice import choosable, forces_call, offered_tools

if TYPE_CHECKING:
    from mofa_gguf.provider.loaded import LoadedModel, Prompt

logger = logging.getLogger(__name__)

MakeConstraint = Callable[[], TokenConstraint]
_MAX_RULES = 50_000
_FORMS = ("regex", "lark", "gbnf")


def answer_constraint(
    model: LoadedModel, request: ChatCompletionRequest, parameters: Parameters, prompt: Prompt
) -> MakeConstraint | None:
    """Makes the constraint of each answer to a request; None for answers that are free.

    Raises ConfigError for what cannot be enforced, ProviderNotSupported for calls that the model's
    format has no grammar for.
    """
    field = _form_field(request, parameters)
    tools = offered_tools(request)
    budget = parameters.thinking_budget(model.template.variables)
    if field is None and tools is None and budget is None:
        return None
    forms = model.template.forms(prompt.text, tokens=model.mark_tokens)
    planner = _Planner(model, request, forms, parameters.parallel_tool_calls is not False)
    try:
        content = _content_grammar(request, parameters)
        if forces_call(request):
            plan = planner.whole(None, choosable(request))
        elif content is not None:
            plan = planner.whole(content, tools or [])
        else:
            plan = planner.free(tools or [])
    except ConstraintError as error:
        raise ConfigError(str(error), field=field) from error
    except CallsNotDescribable as error:
        raise ProviderNotSupported(str(error), provider="gguf") from error
    staged = planner.with_budget(plan, budget)
    constraints, eos = model.constraints, model.constraints.eos
    return lambda: StagedConstraint(staged, constraints, eos=eos)


def text_constraint(
    model: LoadedModel, request: ChatCompletionRequest, parameters: Parameters
) -> MakeConstraint | None:
    """The constraint of text that continues a bare prompt; None where it is free.

    Raises ConfigError for what cannot be enforced.
    """
    field = _form_field(request, parameters)
    try:
        content = _content_grammar(request, parameters)
        return None if content is None else model.constraints.maker(content)
    except ConstraintError as error:
        raise ConfigError(str(error), field=field) from error


def _form_field(request: ChatCompletionRequest, parameters: Parameters) -> str | None:
    """What of the request says how the answer's text must look. Raises ConfigError for two."""
    given = [name for name in _FORMS if getattr(parameters, name) is not None]
    wanted = request.response_format
    if wanted is not None and wanted.format_type != "text":
        given.insert(0, "response_format")
    if len(given) > 1:
        raise ConfigError(
            f"{given[0]} and {given[1]} both say what the answer must look like; send one of them",
            field=given[1],
        )
    return given[0] if given else None


def _content_grammar(request: ChatCompletionRequest, parameters: Parameters) -> Grammar | None:
    """The form of the answer's text. Raises ConstraintError."""
    if parameters.regex is not None:
        return grammars.regex(parameters.regex)
    if parameters.lark is not None:
        return grammars.lark(parameters.lark)
    if parameters.gbnf is not None:
        return grammars.gbnf(parameters.gbnf)
    wanted = request.response_format
    if wanted is None or wanted.format_type == "text":
        return None
    spec = wanted.schema_spec() if wanted.format_type == "json_schema" else None
    schema: Any = {"type": "object"} if spec is None else spec.schema
    return grammars.json_schema(schema, whitespace=parameters.json_whitespace)


class _Planner:
    """Makes plans for one request."""

    def __init__(
        self,
        model: LoadedModel,
        request: ChatCompletionRequest,
        forms: AnswerForms,
        parallel: bool,
    ) -> None:
        self._model = model
        self._constraints = model.constraints
        self._forms = forms
        # A tool asked for by name is called once.
        self._parallel = parallel and not isinstance(request.tool_choice, SpecificToolChoice)

    def whole(self, content: Grammar | None, tools: list[Tool]) -> AnswerPlan:
        """An answer that must be calls, or ``content``, from its beginning to its end."""
        definitions = _definitions(tools)

        def make(*, resumed: bool = False, reasoning: bool = False) -> Callable[[], Constraint]:
            if content is not None and not (tools or resumed or reasoning or self._forms.has_frame):
                return self._constraints.maker(content)
            text = self._forms.answer(
                tools=definitions,
                content=content is not None,
                parallel=self._parallel,
                resumed=resumed,
                reasoning=reasoning,
            )
            grammar = _ours(text) if content is None else grammars.framed(text, content)
            return self._constraints.maker(grammar)

        try:
            _check(tools)
            opened, may_reason = self._forms.opened, self._forms.may_reason
            main = make()
            return AnswerPlan(
                main=main,
                opening_main=make(reasoning=True) if may_reason and opened is None else None,
                resumed_main=make(resumed=True) if may_reason or opened is not None else None,
            )
        except ConstraintError as error:
            if content is not None:
                self._constraints.of(content)  # raises, if it is the content's fault
            if not tools:
                raise
            raise ConfigError(
                f"a call of these tools cannot be enforced ({error}); "
                "simplify their parameters or use tool_choice 'auto'",
                field="tools",
            ) from error

    def free(self, tools: list[Tool]) -> AnswerPlan:
        """Free text; calls are under a grammar as soon as they have begun.

        Tools whose arguments cannot be enforced are left to the parser, unless they are strict.
        """
        if not tools:
            return AnswerPlan()
        try:
            triggers = self._triggers(tools, ())
        except (CallsNotDescribable, ConstraintError):
            triggers = self._some_triggers(tools, self._unenforceable(tools))
        single = not (self._parallel and self._forms.parallel)
        return AnswerPlan(triggers=tuple(triggers), single=single)

    def with_budget(self, plan: AnswerPlan, budget: int | None) -> AnswerPlan:
        """The plan with the marks of reasoning, and the tokens it may take."""
        opened = self._forms.opened
        return AnswerPlan(
            main=plan.main,
            opening_main=plan.opening_main,
            resumed_main=plan.resumed_main,
            triggers=plan.triggers,
            single=plan.single,
            reasoning=tuple(map(self._marks, self._forms.reasoning)),
            opened=None if opened is None else self._marks(opened),
            budget=budget,
        )

    def _marks(self, marks: ReasoningMarks) -> Reasoning:
        closing = self._model.vocab.tokenize(marks.close, parse_special=True, continues=True)
        return Reasoning(marks.open.encode(), marks.close.encode(), closing)

    def _triggers(self, tools: list[Tool], unenforced: Sequence[str]) -> list[Trigger]:
        _check(tool for tool in tools if tool.function.name not in unenforced)
        return [
            Trigger(
                each.pattern.encode(),
                self._constraints.maker(_ours(each.grammar)),
                at_start=each.at_start,
            )
            for each in self._forms.triggers(
                _definitions(tools), parallel=self._parallel, free=unenforced
            )
        ]

    def _some_triggers(self, tools: list[Tool], unenforced: Sequence[str]) -> list[Trigger]:
        """Triggers for the tools that can be enforced; none where even their names cannot be."""
        try:
            return self._triggers(tools, unenforced)
        except (CallsNotDescribable, ConstraintError) as error:
            logger.warning("calls are parsed but not constrained: %s", _reason(error))
            return []

    def _unenforceable(self, tools: list[Tool]) -> list[str]:
        """The names of the tools whose arguments have no grammar. Raises for strict ones."""
        try:
            self._triggers(tools, ())
        except (CallsNotDescribable, ConstraintError) as error:
            if len(tools) > 1:
                return [name for tool in tools for name in self._unenforceable([tool])]
            (tool,) = tools
            name = tool.function.name
            if tool.function.strict:
                raise ConfigError(
                    f"the strict tool {name!r} cannot be enforced ({error}); "
                    "simplify its parameters or leave strict out",
                    field="tools",
                ) from error
            _say_unenforced(name, _reason(error))
            return [name]
        return []


def _check(tools: Iterable[Tool]) -> None:
    """Raises ConstraintError for what no grammar of these tools' arguments could enforce."""
    for tool in tools:
        check_schema(tool.function.parameters)


def _ours(text: str) -> Grammar:
    """A grammar of the chat room's: it has many rules, but no long chain of them."""
    return grammars.lark(text, n_rules_max=_MAX_RULES)


@lru_cache(maxsize=1024)
def _say_unenforced(tool: str, reason: str) -> None:
    """Say it once, not with every request."""
    logger.warning("calls of the tool %r are parsed but not constrained: %s", tool, reason)


def _reason(error: Exception) -> str:
    return error.what if isinstance(error, CallsNotDescribable) else str(error)


def _definitions(tools: list[Tool]) -> list[dict[str, Any]]:
    return [tool.to_dict() for tool in tools]
