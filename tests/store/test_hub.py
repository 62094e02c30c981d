"""Downloads, against a hub on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mofa_gguf.store import CacheUnavailable, DownloadFailed, fetch, pull, resolve
from mofa_gguf.store.hub import download, find_local
from mofa_gguf.store.progress import DownloadProgress
from mofa_gguf.store.reference import HubReference
from tests.store.checkpoints import RecordingConverter, safetensors
from tests.store.fake_hub import FakeHub

WEIGHTS = b"GGUF" + bytes(range(256)) * 64
REPO = "org/model"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeHub]:
    with FakeHub() as server:
        yield server


@pytest.fixture
def hub(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    server.repositories.clear()
    server.refused.clear()
    server.requests.clear()
    server.drop_after.clear()
    server.ignores_ranges = False
    server.damages = False
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(fetch, "FIRST_PAUSE_S", 0.01)
    return server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOFA_GGUF_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def checkpoint_files() -> dict[str, bytes]:
    return {
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "tokenizer.json": b"{}",
        "model.safetensors": safetensors(bytes(10_000)),
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"print('never fetched')",
    }


def test_the_usual_file_of_a_gguf_repository_is_fetched(hub: FakeHub, cache: Path) -> None:
    hub.add(REPO, {"m-Q4_K_M.gguf": WEIGHTS, "m-Q8_0.gguf": WEIGHTS + b"8", "README.md": b"hi"})
    path = pull(REPO, endpoint=hub.endpoint)
    assert path.name == "m-Q4_K_M.gguf"
    assert path.read_bytes() == WEIGHTS
    assert path.is_relative_to(cache / "hub")
    assert hub.gets()["README.md"] == hub.gets()["m-Q8_0.gguf"] == 0


def test_a_quantization_or_a_file_can_be_named(hub: FakeHub, cache: Path) -> None:
    hub.add(REPO, {"m-Q4_K_M.gguf": WEIGHTS, "m-Q8_0.gguf": WEIGHTS + b"8"})
    assert pull(f"{REPO}:Q8_0", endpoint=hub.endpoint).name == "m-Q8_0.gguf"
    assert pull(f"hf://{REPO}/m-Q4_K_M.gguf", endpoint=hub.endpoint).name == "m-Q4_K_M.gguf"


def test_a_split_model_comes_whole_and_side_by_side(hub: FakeHub, cache: Path) -> None:
    names = [f"Q8_0/m-{n:05}-of-00002.gguf" for n in (1, 2)]
    hub.add(REPO, {name: WEIGHTS + name.encode() for name in names})
    path = pull(REPO, endpoint=hub.endpoint)
    assert path.as_posix().endswith(names[0])
    assert path.with_name("m-00002-of-00002.gguf").read_bytes() == WEIGHTS + names[1].encode()
    assert resolve(str(path)).path == path


def test_a_checkpoint_repository_comes_without_pickles_and_code(hub: FakeHub, cache: Path) -> None:
    hub.add(REPO, checkpoint_files())
    folder = pull(REPO, endpoint=hub.endpoint)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    converter = RecordingConverter()
    resolved = resolve(f"{REPO}:Q4_0", converter=converter)
    assert (resolved.kind, resolved.checkpoint) == ("hub", folder)
    assert [kind for _, _, kind in converter.calls] == ["Q4_0"]


def test_a_model_on_disk_is_used_without_asking_the_network(hub: FakeHub, cache: Path) -> None:
    hub.add(REPO, {"m-Q8_0.gguf": WEIGHTS})
    path = pull(REPO, endpoint=hub.endpoint)
    hub.requests.clear()
    assert resolve(REPO).path == path
    assert resolve(REPO, offline=True).kind == "hub"
    assert hub.requests == []


def test_pulling_again_fetches_only_what_changed(hub: FakeHub, cache: Path) -> None:
    files = checkpoint_files()
    hub.add(REPO, files)
    pull(REPO, endpoint=hub.endpoint)
    hub.requests.clear()
    pull(REPO, endpoint=hub.endpoint)
    assert [path for _, path, _ in hub.requests] == [f"/api/models/{REPO}/revision/main"]
    hub.requests.clear()
    hub.add(REPO, {**files, "config.json": b'{"changed": true}'})
    folder = pull(REPO, endpoint=hub.endpoint)
    assert (folder / "config.json").read_bytes() == b'{"changed": true}'
    assert hub.gets()["config.json"] == 1
    assert hub.gets()["model.safetensors"] == 0
    assert resolve(REPO, converter=RecordingConverter()).checkpoint == folder


def test_a_lost_connection_goes_on_where_it_was(hub: FakeHub, cache: Path) -> None:
    hub.add(REPO, {"m.gguf": WEIGHTS})
    hub.drop_after = [5000, 3000]
    assert pull(REPO, endpoint=hub.endpoint).read_bytes() == WEIGHTS
    assert hub.ranges("m.gguf") == [None, "bytes=5000-", "bytes=8000-"]


def test_a_broken_download_is_continued_by_the_next_process(hub: FakeHub, cache: Path) -> None:
    hub.add(REPO, {"m.gguf": WEIGHTS})
    hub.drop_after = [5000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="what was fetched already is kept"):
        pull(REPO, endpoint=hub.endpoint)
    assert find_local(HubReference(REPO), cache / "hub") is None
    assert list((cache / "hub").rglob("*.gguf")) == []
    hub.requests.clear()
    assert pull(REPO, endpoint=hub.endpoint).read_bytes() == WEIGHTS
    assert hub.ranges("m.gguf") == ["bytes=5000-"]
    assert list((cache / "hub").rglob("*.incomplete")) == []


def test_a_server_that_ignores_ranges_is_read_from_the_start(hub: FakeHub, cache: Path) -> None:
    hub.add(REPO, {"m.gguf": WEIGHTS})
    hub.drop_after = [5000]
    hub.ignores_ranges = True
    assert pull(REPO, endpoint=hub.endpoint).read_bytes() == WEIGHTS


@pytest.mark.parametrize("content", [WEIGHTS, b"GGUF small"])
def test_damaged_bytes_are_found_and_not_kept(hub: FakeHub, cache: Path, content: bytes) -> None:
    hub.add(REPO, {"m.gguf": content})
    hub.damages = True
    with pytest.raises(DownloadFailed, match="arrived damaged"):
        pull(REPO, endpoint=hub.endpoint)
    hub.damages = False
    assert pull(REPO, endpoint=hub.endpoint).read_bytes() == content


def test_progress_counts_every_file_and_ends_at_the_total(hub: FakeHub, cache: Path) -> None:
    files = checkpoint_files()
    hub.add(REPO, files)
    reports: list[DownloadProgress] = []
    pull(REPO, endpoint=hub.endpoint, progress=reports.append)  # type: ignore[arg-type]
    counted = [report.n_bytes_done for report in reports]
    assert counted == sorted(counted)
    total = sum(len(files[name]) for name in ("config.json", "tokenizer.json", "model.safetensors"))
    assert reports[-1].n_bytes_done == reports[-1].n_bytes == total
    assert {report.file for report in reports} == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
    }


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (401, "RepoNotFound", "no such repository, or it is private"),
        (404, "RepoNotFound", "no such repository"),
        (403, "GatedRepo", "gives access on request"),
        (404, "RevisionNotFound", "no revision 'main'"),
        (503, "", "HTTP status 503; try again later"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    hub: FakeHub, cache: Path, status: int, code: str, reason: str
) -> None:
    hub.refused[REPO] = (status, code)
    with pytest.raises(DownloadFailed, match=reason) as caught:
        pull(REPO, endpoint=hub.endpoint)
    assert caught.value.repo == REPO
    assert "\n" not in str(caught.value)


def test_a_repository_of_pickles_is_refused(hub: FakeHub, cache: Path) -> None:
    hub.add(REPO, {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(DownloadFailed, match="only pickled weights"):
        pull(REPO, endpoint=hub.endpoint)
    assert hub.gets()["pytorch_model.bin"] == 0


def test_without_a_network_the_error_says_what_to_do(cache: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"no connection.*run 'mofa-gguf pull org/model'"):
        pull(REPO, endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_environment_can_forbid_the_network(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(DownloadFailed, match="not downloaded before"):
        resolve(REPO)
    with pytest.raises(DownloadFailed, match="not downloaded before"):
        pull(REPO, endpoint=hub.endpoint)
    assert hub.requests == []


def test_too_little_room_is_noticed_before_the_download(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, {"m.gguf": WEIGHTS})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(DownloadFailed, match="are needed"):
        pull(REPO, endpoint=hub.endpoint)
    assert hub.gets()["m.gguf"] == 0


def test_a_folder_that_cannot_be_written_is_named(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(REPO, {"m.gguf": WEIGHTS})
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CacheUnavailable):
        download(HubReference(REPO), tmp_path / "file" / "hub", endpoint=hub.endpoint)


def test_an_incomplete_checkpoint_on_disk_is_not_used(hub: FakeHub, cache: Path) -> None:
    files = checkpoint_files()
    del files["model.safetensors"]
    shards = [f"model-{n:05}-of-00002.safetensors" for n in (1, 2)]
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    files["model.safetensors.index.json"] = repr(index).replace("'", '"').encode()
    hub.add(REPO, {**files, **{shard: safetensors() for shard in shards}})
    folder = pull(REPO, endpoint=hub.endpoint)
    reference = HubReference(REPO)
    assert find_local(reference, cache / "hub") is not None
    (folder / shards[1]).unlink()
    assert find_local(reference, cache / "hub") is None
    pull(REPO, endpoint=hub.endpoint)
    (folder / "tokenizer.json").unlink()
    assert find_local(reference, cache / "hub") is None
