"""Conversions kept in the cache: once for each content, also among several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from mofa_gguf.convert.errors import CheckpointError
from mofa_gguf.store import CacheUnavailable, clear, usage
from mofa_gguf.store import converted as converted_module
from mofa_gguf.store.converted import ConversionCache, converter_version, remove_stale
from tests.store.checkpoints import RecordingConverter, make_checkpoint, safetensors

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def converter() -> RecordingConverter:
    return RecordingConverter()


@pytest.fixture
def cache(tmp_path: Path, converter: RecordingConverter) -> ConversionCache:
    return ConversionCache(tmp_path / "cache", converter)


def test_a_checkpoint_is_converted_once(
    tmp_path: Path, cache: ConversionCache, converter: RecordingConverter
) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    first = cache.get(folder, "Q8_0")
    assert first.read_bytes() == b"GGUFQ8_0"
    assert first.name.startswith("tiny-Q8_0-")
    assert cache.get(folder, "Q8_0") == first
    assert len(converter.calls) == 1


def test_another_quantization_is_another_file(
    tmp_path: Path, cache: ConversionCache, converter: RecordingConverter
) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    assert cache.get(folder, "Q8_0") != cache.get(folder, "F16")
    assert cache.get(folder, "f16") == cache.get(folder, "F16")
    assert len(converter.calls) == 2


def test_other_weights_are_another_file(
    tmp_path: Path, cache: ConversionCache, converter: RecordingConverter
) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    first = cache.get(folder, "Q8_0")
    (folder / "model.safetensors").write_bytes(safetensors(b"\7" * 8))
    assert cache.get(folder, "Q8_0") != first


def test_another_converter_is_another_file(
    tmp_path: Path, cache: ConversionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    first = cache.get(folder, "Q8_0")
    assert len(converter_version()) == 64
    monkeypatch.setattr(converted_module, "converter_version", lambda: "newer")
    assert cache.get(folder, "Q8_0") != first


def test_a_failed_conversion_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    def fail(source: Path, output: Path, quantization: str, *, progress: object) -> object:
        output.write_bytes(b"half")
        raise CheckpointError(source, "is broken")

    folder = make_checkpoint(tmp_path / "tiny")
    with pytest.raises(CheckpointError, match="is broken"):
        ConversionCache(tmp_path / "cache", fail).get(folder, "Q8_0")
    left = list((tmp_path / "cache" / "converted").iterdir())
    assert [path.suffix for path in left if path.suffix != ".lock"] == []
    assert ConversionCache(tmp_path / "cache", RecordingConverter()).get(folder, "Q8_0").exists()


def test_a_cache_folder_that_cannot_be_made_is_named(
    tmp_path: Path, converter: RecordingConverter
) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = ConversionCache(tmp_path / "file" / "cache", converter)
    with pytest.raises(CacheUnavailable, match="MOFA_GGUF_CACHE_DIR") as caught:
        cache.get(make_checkpoint(tmp_path / "tiny"), "Q8_0")
    assert str(tmp_path / "file") in str(caught.value)
    assert converter.calls == []


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_makes_stays(
    tmp_path: Path, cache: ConversionCache
) -> None:
    place = tmp_path / "cache" / "converted"
    for name in ("partial-dead-1", "partial-alive-1"):
        (place / name).mkdir(parents=True)
    with FileLock(place / "alive.lock"):
        cache.get(make_checkpoint(tmp_path / "tiny"), "Q8_0")
        assert not (place / "partial-dead-1").exists()
        assert (place / "partial-alive-1").exists()
    assert remove_stale(place) == [place / "partial-alive-1"]


SCRIPT = """
import sys, time
from pathlib import Path
from mofa_gguf.store.converted import ConversionCache

def convert(source, output, quantization, *, progress):
    with open(sys.argv[3], "a") as log:
        log.write("converted\\n")
    output.write_bytes(b"GG")
    time.sleep(0.5)
    output.write_bytes(b"GGUF whole")

path = ConversionCache(Path(sys.argv[1]), convert).get(Path(sys.argv[2]), "Q8_0")
assert path.read_bytes() == b"GGUF whole"
print(path)
"""


def test_three_processes_that_ask_at_once_convert_once(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    log = tmp_path / "log"
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cache"), str(folder), str(log)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        for _ in range(3)
    ]
    answers = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(answers) == 1
    assert log.read_text() == "converted\n"


def test_threads_of_one_process_that_ask_at_once_convert_once(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    converter = RecordingConverter()
    with ThreadPoolExecutor(4) as pool:
        paths = list(
            pool.map(
                lambda _: ConversionCache(tmp_path / "cache", converter).get(folder, "Q8_0"),
                range(8),
            )
        )
    assert len(set(paths)) == 1
    assert len(converter.calls) == 1


def test_a_process_killed_while_converting_blocks_nobody(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    hanging = SCRIPT.replace("time.sleep(0.5)", "print('started', flush=True); time.sleep(600)")
    arguments = [str(tmp_path / "cache"), str(folder), str(tmp_path / "log")]
    with subprocess.Popen(
        [sys.executable, "-c", hanging, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.kill()
    path = ConversionCache(tmp_path / "cache", RecordingConverter()).get(folder, "Q8_0")
    assert path.exists()
    assert list(path.parent.glob("partial-*")) == []


def test_usage_lists_what_was_converted_and_clear_removes_it(
    tmp_path: Path, cache: ConversionCache
) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    path = cache.get(folder, "Q8_0")
    listing = usage(tmp_path / "cache")
    (model,) = listing.models
    assert (model.path, model.source, model.quantization) == (path, str(folder), "Q8_0")
    assert model.n_bytes == 8
    assert listing.n_bytes >= 8
    assert json.loads(json.dumps(listing.to_dict()))["models"][0]["path"] == str(path)
    assert clear(tmp_path / "cache") >= 8
    assert usage(tmp_path / "cache").models == ()
    assert clear(tmp_path / "cache") == 0


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mofa_gguf.store import cache_folder, hub_folder

    monkeypatch.setenv("MOFA_GGUF_CACHE_DIR", str(tmp_path / "from-environment"))
    assert cache_folder() == tmp_path / "from-environment"
    assert hub_folder() == tmp_path / "from-environment" / "hub"
    assert cache_folder(tmp_path / "argument") == tmp_path / "argument"
    monkeypatch.delenv("MOFA_GGUF_CACHE_DIR")
    assert cache_folder().name == "mofa-gguf"
