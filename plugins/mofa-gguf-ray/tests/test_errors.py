"""Errors that travel: the contract's own class, with its data."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from mofa_gguf_ray.calls import translated
from mofa_gguf_ray.errors import Failure, ReplicaLost

from mofa_gguf.batch import OtherBatch
from mofa_gguf.contract import (
    ApiError,
    ConfigError,
    ContextLengthExceeded,
    LLMError,
    ModelNotFound,
    NetworkError,
    Other,
    RateLimited,
    Timeout,
)

ERRORS = [
    ApiError("a failed decode", code="500"),
    ContextLengthExceeded("too long", n_tokens=9, n_ctx=8),
    ModelNotFound("no such model", model="x", known=("a", "b")),
    ConfigError("wrong", field="n_ctx", path=Path("f.toml"), known=("n_ctx",)),
    RateLimited("too many", limit=3, retry_after_s=0.5),
    Timeout("late", timeout_s=1.5),
    Other("whatever"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was(error: LLMError) -> None:
    arrived = pickle.loads(pickle.dumps(Failure.of(error))).error()
    assert type(arrived) is type(error)
    assert (str(arrived), vars(arrived)) == (str(error), vars(error))


def test_a_class_of_its_own_arrives_as_the_contracts() -> None:
    sent = OtherBatch.__new__(OtherBatch)
    LLMError.__init__(sent, "another batch")
    assert type(Failure.of(sent).error()) is ConfigError


def test_what_is_not_the_contracts_is_a_failure_of_the_backend() -> None:
    arrived = Failure.of(KeyError("x")).error()
    assert isinstance(arrived, ApiError)
    assert arrived.code == "500"
    assert "KeyError" in arrived.message


class ActorDiedError(Exception):
    """By its name, as Ray has it."""


def test_a_lost_replica_is_a_network_error_that_tells_how_far_it_came() -> None:
    error = translated(ActorDiedError("the actor\ndied"), "r1", 7)
    assert isinstance(error, ReplicaLost)
    assert isinstance(error, NetworkError)
    assert (error.replica, error.n_pieces) == ("r1", 7)
    assert "\n" not in error.message


def test_other_failures_of_ray_are_failures_of_the_backend() -> None:
    error = translated(ValueError("odd"))
    assert isinstance(error, ApiError)
    assert error.code == "500"
