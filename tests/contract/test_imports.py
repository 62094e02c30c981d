"""The contract stands alone, and says what it exports."""

from __future__ import annotations

import subprocess
import sys

from mofa_gguf import contract


def test_importing_the_contract_loads_no_other_room_that_the_package_itself_does_not() -> None:
    root = _loaded_by("import mofa_gguf")
    with_contract = _loaded_by("import mofa_gguf.contract")
    ours = {name for name in with_contract - root if name.startswith("mofa_gguf")}
    assert "mofa_gguf.contract" in with_contract
    assert all(name.startswith("mofa_gguf.contract") for name in ours)


def test_the_contracts_modules_load_nothing_of_the_package_but_each_other() -> None:
    # A package without the root's own imports: what the contract's files themselves pull in.
    alone = _loaded_by(
        "import sys, types, importlib.util as u; "
        "spec = u.find_spec('mofa_gguf'); "
        "root = types.ModuleType('mofa_gguf'); "
        "root.__path__ = spec.submodule_search_locations; "
        "sys.modules['mofa_gguf'] = root; "
        "import mofa_gguf.contract"
    )
    ours = {name for name in alone if name.startswith("mofa_gguf.")}
    assert ours
    assert all(name.startswith("mofa_gguf.contract") for name in ours)


def test_importing_the_contract_loads_no_heavy_package() -> None:
    loaded = {name.split(".")[0] for name in _loaded_by("import mofa_gguf.contract")}
    assert not loaded & {"llama_cpp", "numpy", "gguf", "tokenizers", "huggingface_hub", "rich"}


def test_the_export_list_is_sorted_and_true() -> None:
    assert contract.__all__ == sorted(contract.__all__)
    assert all(hasattr(contract, name) for name in contract.__all__)


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())
