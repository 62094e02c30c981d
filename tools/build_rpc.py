"""Build llama.cpp with ggml's RPC backend, for models that run over several machines.

A build from pip can have it too (``CMAKE_ARGS="-DGGML_RPC=on" pip install --no-binary
llama-cpp-python ...``), at the price of compiling everything again. This builds the three libraries
that matter (about two minutes on two cores) from the source distribution of the installed release,
beside it, and prints the folder to name in ``LLAMA_CPP_LIB_PATH``:

    python tools/build_rpc.py build/rpc
    LLAMA_CPP_LIB_PATH=build/rpc mofa-gguf worker

``--source`` takes an unpacked source distribution in place of the one that pip downloads.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

TARGETS = ("ggml-rpc", "ggml", "llama")
# As the Makefile builds: AMX kernels that run whatever GCC compiled them, no AVX512-FP16.
_HEADER = Path(__file__).resolve().parent.parent / "mofa_gguf" / "data" / "amx_tile_config.h"
FLAGS = (("-include", str(_HEADER)), ("-mno-avx512fp16",))
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_RPC=ON",
    "-DLLAMA_BUILD_COMMON=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TOOLS=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    # The libraries find each other wherever the folder is moved to.
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="folder for the libraries")
    parser.add_argument("--source", type=Path, help="an unpacked llama-cpp-python source")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.source or fetch(Path(scratch))
        build = Path(scratch) / "build"
        compile_libraries(source / "vendor" / "llama.cpp", build, jobs=arguments.jobs)
        names = collect(build, arguments.output)
    print(f"{', '.join(names)} are in {arguments.output.resolve()}")
    return 0


def fetch(folder: Path) -> Path:
    """Download and unpack the source distribution of the installed llama-cpp-python."""
    release = f"llama-cpp-python=={version('llama-cpp-python')}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps"]
    wanted = ["--no-binary", "llama-cpp-python", "--dest", str(folder), release]
    subprocess.run([*command, *wanted], check=True)
    (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def compile_libraries(source: Path, build: Path, *, jobs: int) -> None:
    """Configure and build the targets; nothing else of llama.cpp."""
    flags = " ".join(flag for group in FLAGS if knows(group) for flag in group)
    own = [f"-DCMAKE_{language}_FLAGS={flags}" for language in ("C", "CXX")]
    configure = ["cmake", "-S", str(source), "-B", str(build), *OPTIONS, *own]
    subprocess.run(configure, check=True)
    subprocess.run(
        ["cmake", "--build", str(build), "--parallel", str(jobs), "--target", *TARGETS], check=True
    )


def knows(flags: tuple[str, ...]) -> bool:
    """Whether the compiler has these flags."""
    command = [os.environ.get("CC", "cc"), *flags, "-x", "c", "-E", "-"]
    return subprocess.run(command, input=b"", capture_output=True).returncode == 0


def collect(build: Path, output: Path) -> list[str]:
    """Copy the built libraries, with the names that the others look for them by."""
    output.mkdir(parents=True, exist_ok=True)
    found = [path for end in ("so*", "dylib", "dll") for path in (build / "bin").glob(f"*.{end}")]
    if not found:
        raise SystemExit("the build left no libraries in its bin folder")
    for path in found:
        shutil.copy2(path, output / path.name, follow_symlinks=True)
    return sorted({path.name.split(".")[0] for path in found})


if __name__ == "__main__":
    sys.exit(main())
