"""Paths that a shell gives and few people expect: bytes that are no UTF-8, brackets, pipes, links.

Python holds such bytes as half surrogate pairs, which neither pydantic, JSON nor GGUF can say.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mofa_gguf.cli.main import main
from mofa_gguf.engine.files.header import read_header
from tests.cli.conftest import Ran
from tests.cli.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_gguf import write_tiny_llama

Run = Callable[..., Ran]

BYTE = os.fsdecode(b"\xff")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and a GGUF file, to be copied under other names."""
    folder = tmp_path_factory.mktemp("made")
    write_tiny_checkpoint(folder / "checkpoint")
    write_tiny_llama(folder / "model.gguf")
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``mofa-gguf`` with standard streams as a process has them in a UTF-8 locale."""

    def run(*arguments: object, stdin: str = "") -> Ran:
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict", write_through=True)
        err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = main([str(argument) for argument in arguments])
        assert isinstance(out.buffer, io.BytesIO)
        assert isinstance(err.buffer, io.BytesIO)
        return Ran(code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode())

    return run


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder whose name holds a byte that is no UTF-8."""
    folder = tmp_path / f"odd{BYTE}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"this file system takes UTF-8 names only ({error.strerror})")
    return folder


@pytest.fixture
def model(made: Path, odd: Path) -> Path:
    return Path(shutil.copy(made / "model.gguf", odd / f"model{BYTE}.gguf"))


@pytest.fixture
def checkpoint(made: Path, odd: Path) -> Path:
    return Path(shutil.copytree(made / "checkpoint", odd / f"tiny{BYTE}"))


def done(result: Ran) -> Ran:
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    return result


def refused(result: Ran, *says: str) -> None:
    """One line on standard error, behind those on progress, that is no bug's."""
    assert (result.code, result.out) == (1, "")
    *progress, line = result.err.splitlines()
    assert set(progress) <= {"reading", "tokenizer"}
    assert line.startswith("error: ")
    assert "bug" not in line
    for text in says:
        assert text in line


class TestBytesThatAreNoUtf8:
    def test_a_checkpoint_is_converted_and_its_name_in_the_file_is_text(
        self, run: Run, checkpoint: Path, odd: Path
    ) -> None:
        target = odd / f"out{BYTE}.gguf"
        result = done(run("convert", checkpoint, "-q", "Q8_0", "-o", target, "--threads", "1"))
        assert "out?.gguf" in result.out
        metadata = read_header(target).metadata
        assert metadata["general.name"] == metadata["mofa_gguf.source"] == "tiny?"

    def test_the_file_is_named_after_the_checkpoint_byte_for_byte(
        self, run: Run, checkpoint: Path, odd: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(odd)
        report = json.loads(done(run("convert", checkpoint, "-q", "F16", "--json")).out)
        assert report["output"] == "tiny?-F16.gguf"
        assert (odd / f"tiny{BYTE}-F16.gguf").is_file()

    def test_a_file_is_quantized_and_divided(self, run: Run, model: Path, odd: Path) -> None:
        target = odd / f"small{BYTE}.gguf"
        done(run("quantize", model, "-q", "Q8_0", "-o", target, "--threads", "1"))
        assert read_header(target).metadata["mofa_gguf.source"] == "model?.gguf"
        done(run("quantize", model, "-q", "COPY", "--split-max-size", "1M", "-o", odd / "x.gguf"))

    @pytest.mark.parametrize("options", [(), ("--json", "--tensors", "--metadata")])
    def test_files_and_checkpoints_are_inspected(
        self, run: Run, model: Path, checkpoint: Path, options: tuple[str, ...]
    ) -> None:
        for path, name in ((model, "model?.gguf"), (checkpoint, "tiny?")):
            result = done(run("inspect", path, *options))
            assert name in result.out
            if options:
                assert json.loads(result.out)["path"].endswith(name)

    def test_a_file_answers_and_its_name_in_the_answer_is_text(self, run: Run, model: Path) -> None:
        result = done(run("ask", "hello", "-m", model, "-n", "2", "--json"))
        assert json.loads(result.out)["model"] == "model?"

    def test_a_checkpoint_answers_and_is_kept_in_the_cache(
        self, run: Run, checkpoint: Path
    ) -> None:
        for _ in range(2):
            done(run("ask", "hello", "-m", checkpoint, "-n", "2"))
        listed = json.loads(done(run("cache", "--json")).out)
        assert [kept["source"].rsplit("/")[-1] for kept in listed["models"]] == ["tiny?"]
        assert "tiny?" in done(run("cache")).out

    def test_a_cache_folder_may_have_such_a_name(
        self, run: Run, checkpoint: Path, odd: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MOFA_GGUF_CACHE_DIR", str(odd / "cache"))
        done(run("ask", "hello", "-m", checkpoint, "-n", "2"))
        assert len(list((odd / "cache" / "converted").glob("*.gguf"))) == 1

    def test_a_config_file_names_models_beside_it(
        self, run: Run, checkpoint: Path, odd: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MOFA_GGUF_CACHE_DIR")
        checkpoint.rename(odd / "plain")
        config = odd / f"config{BYTE}.toml"
        config.write_text(
            '[providers.local]\nprovider = "gguf"\nmodel = "./plain"\n'
            'draft_model = "plain"\ncache_dir = "cache"\n'
        )
        done(run("ask", "hello", "-c", config, "-n", "2"))
        assert len(list((odd / "cache" / "converted").glob("plain-*.gguf"))) == 1
        assert "odd?/config?.toml: local" in run("doctor", "-c", config).out

    def test_plans_batches_and_importance_are_computed(
        self, run: Run, model: Path, odd: Path
    ) -> None:
        done(run("plan", model, "--n-ctx", "64"))
        jobs, answers = odd / f"in{BYTE}.jsonl", odd / f"out{BYTE}.jsonl"
        jobs.write_text('{"prompt": "hello", "max_tokens": 2}\n')
        assert "out?.jsonl" in done(run("batch", jobs, "-o", answers, "-m", model)).out
        text, matrix = odd / f"text{BYTE}.txt", odd / f"matrix{BYTE}.gguf"
        text.write_text("hello world " * 20)
        done(run("imatrix", model, text, "-o", matrix, "--chunk-size", "32", "--threads", "1"))
        assert list(read_header(matrix).metadata["imatrix.datasets"]) == ["text?.txt"]
        small = odd / "small.gguf"
        done(run("quantize", model, "-o", small, "--imatrix", matrix, "--threads", "1"))
        assert read_header(small).metadata["quantize.imatrix.file"] == "matrix?.gguf"

    @pytest.mark.parametrize(
        "arguments",
        [
            ("inspect", "none{}.gguf"),
            ("inspect", "none{}"),
            ("convert", "none{}"),
            ("quantize", "none{}.gguf"),
            ("ask", "hello", "-m", "none{}.gguf"),
            ("ask", "hello", "-m", "org/name{}"),
            ("ask", "hello", "-m", "hf://org/name{}"),
            ("ask", "hello", "-c", "none{}.toml"),
            ("ask", "hello", "-m", "demo", "--schema", "none{}.json"),
            ("convert", "demo", "-q", "F16", "-o", "none{}/x.gguf"),
            ("convert", "demo", "-q", "{}"),
            ("convert", "demo", "-q", "IQ2_XS", "--imatrix", "none{}.gguf"),
            ("convert", "demo", "--verify-text", "none{}.txt"),
            ("batch", "none{}.jsonl", "-o", "out.jsonl", "-m", "demo"),
            ("imatrix", "none{}.gguf", "text.txt", "-o", "out.gguf"),
            ("plan", "none{}.gguf"),
        ],
    )
    def test_what_is_not_there_is_one_line(self, run: Run, arguments: tuple[str, ...]) -> None:
        result = run(*(argument.format(BYTE) for argument in arguments))
        refused(result, r"\udcff")


class TestOddNames:
    @pytest.mark.parametrize(
        "name",
        [
            "with space",
            "[bold]red[/bold]",
            "[/]",
            ":smile:",
            "50% %s %(name)s {0}",
            "-leading",
            "~tilde",
            "two\nlines",
            "$HOME",
            "a'\"b\\",
            "*?[a-z]",
            "n" * 120,
        ],
    )
    def test_a_folder_and_a_file_of_any_name_are_used_and_shown(
        self, run: Run, made: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        shutil.copytree(made / "checkpoint", tmp_path / name)
        done(run("convert", "-q", "Q8_0", "-o", f"{name}.gguf", "--threads", "1", "--", name))
        assert (tmp_path / f"{name}.gguf").is_file()
        shown = "".join(done(run("inspect", "--metadata", "--", f"{name}.gguf")).out.split())
        assert "".join(f"{name}.gguf".split()) in shown
        assert json.loads(done(run("inspect", "--json", "--", name)).out)["path"] == name
        done(run("ask", "hello", "-m", name, "-n", "1"))
        listed = done(run("cache")).out
        assert "".join(name.split()) in "".join(listed.split())

    def test_a_name_as_long_as_the_system_takes_can_be_written(
        self, run: Run, made: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / f"{'n' * 250}.gguf"
        done(run("quantize", made / "model.gguf", "-q", "COPY", "-o", target))
        assert target.is_file()

    @pytest.mark.parametrize(
        "arguments",
        [
            ("inspect", "{}"),
            ("inspect", "{}.gguf"),
            ("convert", "{}"),
            ("quantize", "{}.gguf"),
            ("convert", "demo", "-o", "{}.gguf"),
            ("ask", "hello", "-m", "{}"),
            ("ask", "hello", "-c", "{}.toml"),
            ("ask", "hello", "-m", "demo", "--schema", "{}"),
            ("batch", "{}", "-o", "x", "-m", "demo"),
            ("plan", "{}"),
        ],
    )
    def test_a_name_that_is_too_long_is_one_line(
        self, run: Run, arguments: tuple[str, ...]
    ) -> None:
        refused(run(*(argument.format("n" * 5000) for argument in arguments)), "nnn")

    @pytest.mark.parametrize("name", ["[/red]", "a\x1b[31mb", "a\x07\x9bb"])
    def test_an_error_line_shows_a_name_and_obeys_nothing_in_it(self, run: Run, name: str) -> None:
        result = run("quantize", f"{name}.gguf")
        refused(result)
        assert "\x1b" not in result.err
        assert "\x07" not in result.err
        assert "\x9b" not in result.err


class TestWhatIsNoFile:
    @pytest.fixture
    def pipe(self, tmp_path: Path) -> Path:
        os.mkfifo(tmp_path / "pipe.gguf")
        return tmp_path / "pipe.gguf"

    @pytest.mark.parametrize("options", [(), ("--force",)])
    def test_nothing_is_written_in_place_of_a_pipe_or_a_device(
        self, run: Run, made: Path, pipe: Path, options: tuple[str, ...]
    ) -> None:
        null = Path(os.devnull).stat()
        for target in (pipe, os.devnull):
            for command in (
                ("convert", made / "checkpoint", "-q", "F16"),
                ("quantize", made / "model.gguf", "-q", "COPY"),
            ):
                refused(run(*command, "-o", target, *options), "no ordinary file")
        assert pipe.is_fifo()
        assert os.path.samestat(Path(os.devnull).stat(), null)

    def test_a_link_to_nothing_is_replaced_only_on_demand(
        self, run: Run, made: Path, tmp_path: Path
    ) -> None:
        link = tmp_path / "link.gguf"
        link.symlink_to(tmp_path / "nothing")
        command = ("quantize", made / "model.gguf", "-q", "COPY", "-o", link)
        refused(run(*command), "exists already")
        done(run(*command, "--force"))
        assert link.is_file()
        assert not link.is_symlink()

    def test_a_file_is_no_folder_to_write_to(self, run: Run, made: Path) -> None:
        model = made / "model.gguf"
        refused(run("quantize", model, "-q", "COPY", "-o", model / "x.gguf"), "is no folder")

    def test_a_pipe_or_link_to_nothing_is_no_model(
        self, run: Run, pipe: Path, tmp_path: Path
    ) -> None:
        link = tmp_path / "link.gguf"
        link.symlink_to(tmp_path / "nothing")
        for command in (("inspect",), ("quantize",), ("ask", "hello", "-m"), ("plan",)):
            refused(run(*command, pipe), "no ordinary file")
            refused(run(*command, link))

    def test_pipes_in_a_checkpoint_are_not_waited_for(
        self, run: Run, made: Path, tmp_path: Path
    ) -> None:
        for name in ("README.md", "config.json", "model.safetensors", "tokenizer.json"):
            folder = Path(shutil.copytree(made / "checkpoint", tmp_path / f"with {name}"))
            (folder / name).unlink(missing_ok=True)
            os.mkfifo(folder / name)
            result = run("convert", folder, "-q", "F16", "-o", tmp_path / "x.gguf", "--force")
            if name == "README.md":
                done(result)
            else:
                assert result.code == 1
                assert "bug" not in result.err


@pytest.mark.parametrize("name", ["~nobody.gguf", os.fsdecode(b"\xff.gguf"), "[x].gguf"])
def test_a_config_file_may_name_any_file_beside_it(
    run: Run, made: Path, tmp_path: Path, name: str
) -> None:
    shutil.copy(made / "model.gguf", tmp_path / name)
    options = {"provider": "gguf", "model": f"./{name}", "lora": [], "chat_template": "{{ 1 }}"}
    config = tmp_path / "mofa.json"
    config.write_text(json.dumps({"providers": {"local": options}}))
    done(run("ask", "hello", "-c", config, "-n", "1"))


def test_a_chat_template_that_is_no_text_is_one_line(run: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.jinja").write_bytes(b"\xff")
    options = {"provider": "gguf", "model": str(made / "model.gguf")}
    options["chat_template"] = str(tmp_path / "odd.jinja")
    config = tmp_path / "mofa.json"
    config.write_text(json.dumps({"providers": {"local": options}}))
    refused(run("ask", "hello", "-c", config), "odd.jinja is no UTF-8 text (byte 0)")


def test_an_index_that_names_half_a_surrogate_pair_is_one_line(
    run: Run, made: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made / "checkpoint", tmp_path / "indexed"))
    (folder / "model.safetensors").unlink()
    for name in ("\ud800.safetensors", "\udcff.safetensors"):
        index = {"weight_map": {"model.norm.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        refused(run("convert", folder, "-q", "F16"))
