"""Fixtures shared by every room's tests."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["two_hosts"]

# A busy machine makes an example slow, not wrong.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard() -> None:
    """A shell starts background jobs with SIGINT ignored, and so would ours be: set it back."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def disks_are_not_waited_for() -> Iterator[None]:
    """Thousands of small files are written here, and a busy disk takes a second to sync each.

    That files are synced before they get their names is what tests/convert/test_output.py and
    tests/batch/test_run.py hold.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which fails for a closed file, too
        yield


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """What a command does to logging in this process is taken back after each test."""
    logger, native = logging.getLogger("mofa_gguf"), logging.getLogger("mofa_gguf.llama_cpp")
    handlers, propagate = logger.handlers[:], logger.propagate
    levels = logger.level, native.level
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(levels[0])
    native.setLevel(levels[1])


@pytest.fixture
def nothing_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that other tests keep loaded take nothing of a pretended machine's memory."""
    monkeypatch.setattr("mofa_gguf.engine.planning.ledger._open", {})


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real tokenizers, templates and vocabularies kept beside the repository, where present."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository: real tokenizers are not available")
    return folder
