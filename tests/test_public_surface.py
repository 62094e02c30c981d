"""What a user may import, and what importing costs."""

from __future__ import annotations

import resource
import subprocess
import sys

import mofa_gguf
from mofa_gguf import contract


def python(code: str, *options: str) -> str:
    """Standard output of ``code`` in a new interpreter."""
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_public_name_can_be_imported() -> None:
    for name in mofa_gguf.__all__:
        assert getattr(mofa_gguf, name) is not None


def test_every_type_of_the_contract_is_public() -> None:
    assert set(contract.__all__) <= set(mofa_gguf.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(mofa_gguf, "no_such_name")


def test_convert_is_the_function_whatever_was_imported_before() -> None:
    for first in ("", "import mofa_gguf.convert.pipeline; ", "import mofa_gguf.provider; "):
        code = f"{first}from mofa_gguf import convert; print(type(convert).__name__)"
        assert python(code).strip() == "function"


def test_importing_the_package_loads_neither_llama_cpp_nor_numpy() -> None:
    code = (
        "import sys, mofa_gguf; "
        "print([m for m in ('llama_cpp', 'numpy', 'gguf', 'tokenizers') if m in sys.modules])"
    )
    assert python(code).strip() == "[]"


def test_help_answers_in_under_half_a_second_without_llama_cpp_or_numpy() -> None:
    code = (
        "import sys\n"
        "from mofa_gguf.cli.main import main\n"
        "sys.argv = ['mofa-gguf', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print([m for m in ('llama_cpp', 'numpy', 'gguf', 'tokenizers') if m in sys.modules])"
    )
    assert python(code).strip().splitlines()[-1] == "[]"
    assert min(cpu_seconds_of_help() for _ in range(3)) < 0.5


def cpu_seconds_of_help() -> float:
    """The processor's time: a busy machine is no reason to fail."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python(HELP)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


HELP = "import sys; sys.argv = ['mofa-gguf', '--help']; from mofa_gguf.cli.main import main; main()"
