"""Who may import whom: the rooms of the package, and the packages that only some may use.

Imports point down. What counts is every import statement of a file, wherever it stands: at the
top, in a function, or for type checkers only.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mofa_gguf"

# Each room with what it may import of ours: a whole room, or single modules of one. Everything may
# be imported within its own room, and nothing else.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "contract": (),
    "chat": ("contract",),
    "host": ("contract",),
    # Files of requests, over any provider.
    "batch": ("contract", "host"),
    "engine": (),
    # Quantization kernels with the facts of their types, and the checks of a written file.
    "convert": (
        "engine.quantize",
        "engine.files.tensor_types",
        "engine.tokens.vocab",
        "engine.tokens.vocab_file",
        "engine.tokens.exact",
        "engine.tokens.library_tokenizer",
        "engine.tokens.kept_tokenizer",
        "engine.tokens.kept_sentencepiece",
        "engine.tokens.normalizing",
        "engine.models.logits",
        # What an importance matrix is made of: a model reads a text.
        "engine.models.activations",
        "engine.models.reading",
        "engine.files.header",
        # A dry run tells the memory that a model takes, as the engine plans it.
        "engine.planning.fit",
        "engine.planning.facts",
        "engine.errors",
        # Files that go where the process ends.
        "unfinished",
    ),
    "unfinished": (),
    "store": ("convert",),
    # Plain values for the room below, in the contract's terms.
    "settings": (
        "contract",
        "engine.options",
        "quantities",
        "config_errors",
        "config_models",
        "config_paths",
        "config_values",
    ),
    "config_errors": ("contract",),
    "config_models": ("contract",),
    "config_paths": ("adapters",),
    "config_values": ("adapters", "engine.options", "quantities"),
    "adapters": ("engine.options",),
    "quantities": (),
    # store lets the converter's errors through; provider turns them into the contract's.
    "provider": (
        "contract",
        "settings",
        "quantities",
        "store",
        "chat",
        "engine",
        "convert.errors",
    ),
    "plugin": ("contract", "host", "provider", "settings"),
    # OpenAI's API over HTTP. From the engine and the provider: the types of what they report.
    "server": ("contract", "host", "provider.status", "engine.running.stats"),
    # A thin room: the contract's types and errors are what the rooms below it speak in.
    # From the engine: what a file says of itself and what the machine has, to show it.
    "cli": (
        "provider",
        "convert",
        "store",
        "host",
        "batch",
        "server",
        "settings",
        "contract",
        "engine.machine.devices",
        "engine.files.header",
        "engine.errors",
        "engine.planning.load_plan",
        "engine.planning.plan",
        "engine.planning.whole",
        "engine.machine.rpc",
        "unfinished",
    ),
    "data": (),
}

# The floors of the engine, from the ground up: each imports only what stands below it.
# ``probed`` is a process of its own, and starts an engine.
ENGINE_FLOORS = (
    "errors",
    "options",
    "events",
    "native",
    "files",
    "quantize",
    "tokens",
    "machine",
    "structure",
    "speculation",
    "planning",
    "models",
    "cache",
    "scheduling",
    "requests",
    "drafting",
    "running",
    "engine",
    "probed",
)

# Packages that only the named rooms may import, and those that none may.
ONLY_IN: dict[str, frozenset[str]] = {
    "llama_cpp": frozenset({"engine"}),
    "llguidance": frozenset({"engine"}),
    "jinja2": frozenset({"chat"}),
    "pluggy": frozenset({"host", "convert"}),
    "huggingface_hub": frozenset({"store"}),
    "opentelemetry": frozenset({"provider"}),
    "starlette": frozenset({"server"}),
    "uvicorn": frozenset({"server"}),
    "typer": frozenset({"cli"}),
    "rich": frozenset({"cli"}),
    "torch": frozenset(),
    "transformers": frozenset(),
    "pickle": frozenset(),
}

# Rooms that use little beyond the standard library, and what that little is.
NOTHING_BUT: dict[str, frozenset[str]] = {
    "contract": frozenset({"pydantic"}),
    "chat": frozenset({"jinja2", "markupsafe", "pydantic"}),
    "host": frozenset({"pydantic", "pluggy", "anyio", "platformdirs", "yaml", "tomli"}),
}


@dataclass(frozen=True)
class Import:
    """One imported module, with where it is imported."""

    file: Path
    line: int
    target: str

    @property
    def room(self) -> str:
        return _room_of(".".join(self.file.relative_to(PACKAGE).with_suffix("").parts))

    def __str__(self) -> str:
        return f"{self.file.relative_to(PACKAGE.parent)}:{self.line} imports {self.target}"


def _room_of(dotted: str) -> str:
    return dotted.split(".")[0]


def _imports_of(file: Path) -> Iterator[Import]:
    package = ("mofa_gguf", *file.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], base]).rstrip(".")
            for alias in node.names:
                yield Import(file, node.lineno, f"{base}.{alias.name}")


def _all_imports() -> list[Import]:
    # The root only re-exports what the rooms offer, so it may import them all.
    files = (file for file in sorted(PACKAGE.rglob("*.py")) if file.parent != PACKAGE)
    singles = (file for file in sorted(PACKAGE.glob("*.py")) if not file.name.startswith("_"))
    return [found for file in [*files, *singles] for found in _imports_of(file)]


ALL_IMPORTS = _all_imports()


def _floor_of(file: Path) -> str:
    return file.relative_to(PACKAGE / "engine").parts[0].removesuffix(".py")


def _is_allowed(found: Import) -> bool:
    inside = found.target.removeprefix("mofa_gguf.")
    if inside == "__version__" or _room_of(inside) == found.room:
        return True
    return any(inside == may or inside.startswith(f"{may}.") for may in MAY_IMPORT[found.room])


def _refuse(imports: Iterable[Import]) -> None:
    lines = sorted({str(found) for found in imports})
    assert not lines, "\n" + "\n".join(lines)


def test_every_folder_and_module_of_the_package_is_a_known_room() -> None:
    names = {
        path.stem
        for path in PACKAGE.iterdir()
        if (path.is_dir() or path.suffix == ".py") and not path.name.startswith("_")
    }
    assert names <= set(MAY_IMPORT)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_it_may_of_the_package(room: str) -> None:
    ours = [i for i in ALL_IMPORTS if i.room == room and i.target.split(".")[0] == "mofa_gguf"]
    _refuse(found for found in ours if not _is_allowed(found))


def test_the_engine_imports_from_the_floors_below_only() -> None:
    floors = {name: number for number, name in enumerate(ENGINE_FLOORS)}
    inside = [i for i in ALL_IMPORTS if i.room == "engine" and i.target.count(".") >= 2]
    ours = [i for i in inside if i.target.startswith("mofa_gguf.engine.")]
    assert ours
    _refuse(i for i in ours if floors[i.target.split(".")[2]] > floors[_floor_of(i.file)])


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_a_package_is_imported_only_in_its_rooms(package: str) -> None:
    users = [i for i in ALL_IMPORTS if i.target.split(".")[0] == package]
    _refuse(found for found in users if found.room not in ONLY_IN[package])


@pytest.mark.parametrize("room", sorted(NOTHING_BUT))
def test_a_light_room_uses_little_beyond_the_standard_library(room: str) -> None:
    known = sys.stdlib_module_names | NOTHING_BUT[room] | {"mofa_gguf"}
    strangers = [i for i in ALL_IMPORTS if i.room == room and i.target.split(".")[0] not in known]
    _refuse(strangers)


def test_the_scan_sees_imports_wherever_they_stand() -> None:
    file = PACKAGE / "contract" / "provider.py"
    targets = {found.target for found in _imports_of(file)}
    assert "abc.ABC" in targets
    assert "mofa_gguf.contract.models.ModelInfo" in targets
    assert {"config_models", "config_paths", "plugin", "settings"} <= {i.room for i in ALL_IMPORTS}
    plugin = {found.target for found in _imports_of(PACKAGE / "plugin.py")}
    assert "mofa_gguf.provider.GGUFProvider" in plugin  # inside a function
