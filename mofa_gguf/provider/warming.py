"""Models that are loaded, and have computed a token, before the first request comes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence

from mofa_gguf.contract import LLMError
from mofa_gguf.engine.requests.request import GenerationRequest
from mofa_gguf.engine.requests.sampling import SamplingOptions
from mofa_gguf.provider.errors import translated
from mofa_gguf.provider.loaded import LoadedModel
from mofa_gguf.provider.pool import ModelPool
from mofa_gguf.settings import GGUFConfig

logger = logging.getLogger(__name__)


def warm_up(pool: ModelPool, configs: Mapping[str, GGUFConfig]) -> threading.Thread | None:
    """Warm up the models whose options say so, one after the other, in the background.

    One that fails is left for its first request, which is told why.
    """
    names = [name for name, config in configs.items() if _wanted(name, config)]
    if not names:
        return None
    thread = threading.Thread(
        target=_warm_up_all, args=(pool, names), name="mofa-gguf-warm-up", daemon=True
    )
    thread.start()
    return thread


def _wanted(name: str, config: GGUFConfig) -> bool:
    return config.warm_up if isinstance(config.warm_up, bool) else name in config.warm_up


def _warm_up_all(pool: ModelPool, names: Sequence[str]) -> None:
    for name in names:
        use = pool.ask(name)
        try:
            with translated():
                _compute_one_token(use.future.result())
        except LLMError as error:
            if not pool.closed:
                logger.warning("%s could not be warmed up: %s", name, error)
        except Exception:  # a bug: the others are warmed up all the same
            logger.exception("%s could not be warmed up", name)
        finally:
            use.release()


def _compute_one_token(model: LoadedModel) -> None:
    """The first computation, which has what later ones find done: memory touched, kernels made."""
    with model.engine.kept():
        tokens = model.embedding_tokens("")
    if not model.engine.can_generate:
        model.engine.embed([tokens]).result()
        return
    request = GenerationRequest(tokens, SamplingOptions(temperature=0), max_tokens=1)
    for _event in model.engine.submit(request):
        pass
