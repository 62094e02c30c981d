"""Fixtures shared by every room's tests."""

from __future__ import annotations

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


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real tokenizers, templates and vocabularies kept beside the repository, where present."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository: real tokenizers are not available")
    return folder
