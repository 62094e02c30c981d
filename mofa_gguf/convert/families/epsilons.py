"""Norms whose epsilon llama.cpp does not take from where transformers does.

It has one for all norms of an architecture, and for one architecture none. The usual values are so
small that this changes the last digits only; greater ones are refused.
"""

from __future__ import annotations

from mofa_gguf.convert.families.decoder import Decoder

_USUAL = 1e-5


def outer_epsilon(family: Decoder) -> float:
    """The epsilon of config.json. Raises CheckpointError where it is not a usual one."""
    epsilon = family.config.number(*family.epsilon_names, default=family.default_epsilon, minimum=0)
    _demand_usual(family, family.epsilon_names[0], epsilon)
    return epsilon


def share_epsilon(family: Decoder, inside: float, *, name: str | None = None) -> None:
    """Some norms have the epsilon ``inside``, which config.json calls ``name`` if it has it at all.

    llama.cpp takes the model's for them too. Adds a warning where the two differ; raises
    CheckpointError where one of them is not a usual one.
    """
    found = family.config.number(*family.epsilon_names, default=family.default_epsilon, minimum=0)
    if inside == found:
        return
    outside = outer_epsilon(family)
    _demand_usual(family, name or family.epsilon_names[0], inside)
    family.warnings.append(
        f"the norms inside have the epsilon {inside:g}, and llama.cpp takes {outside:g} "
        "for all: very small values come out slightly different"
    )


def _demand_usual(family: Decoder, name: str, epsilon: float) -> None:
    if epsilon > _USUAL:
        raise family.config.fail(
            name,
            f"must be at most {_USUAL:g} for llama.cpp, which does not use it for every norm "
            f"as transformers does, not {epsilon:g}",
        )
