"""Which model a node has: from its environment, or from MoFA's configuration file."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mofa_gguf import GGUFConfig, GGUFProvider, load_provider
from mofa_gguf.contract import ConfigError, LLMProvider

MODEL = "MOFA_GGUF_MODEL"
PROVIDER = "MOFA_PROVIDER"


def provider_from_environment(environ: Mapping[str, str] | None = None) -> LLMProvider:
    """The provider of a node.

    With ``MOFA_GGUF_MODEL``, a model in this process, its options from the other ``MOFA_GGUF_...``
    variables. Otherwise what ``mofa.toml`` says (``MOFA_CONFIG`` names another file): its default
    provider, or the one that ``MOFA_PROVIDER`` names.

    Raises:
        ConfigError: both are set, neither is there, or an option is wrong.
        LLMError: whatever else making the provider raises.
    """
    environ = os.environ if environ is None else environ
    name = environ.get(PROVIDER) or None
    if environ.get(MODEL):
        if name is not None:
            raise ConfigError(
                f"{MODEL} and {PROVIDER} are both set; the first is a model of this node's own, "
                "the second one of the configuration file: keep one",
                field=PROVIDER,
            )
        return GGUFProvider(GGUFConfig())  # its options come from the environment
    return load_provider(name=name)
