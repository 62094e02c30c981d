"""A server's start and end: what is refused, and the command with its signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from mofa_gguf import ConfigError, GGUFConfig, GGUFProvider, ModelNotFound
from mofa_gguf.cli.main import main
from mofa_gguf.host.testing import ScriptedProvider
from mofa_gguf.server import ServerOptions, check_extra, serve
from mofa_gguf.server.options import is_loopback
from tests.server.serving import serving


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_only_this_machines_own_addresses_need_no_key(host: str, own: bool) -> None:
    assert is_loopback(host) is own
    if own:
        ServerOptions(host=host).check()
        return
    with pytest.raises(ConfigError, match="--allow-public") as caught:
        ServerOptions(host=host).check()
    assert caught.value.field == "host"
    ServerOptions(host=host, allow_public=True).check()
    ServerOptions(host=host, api_key="secret").check()


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        ServerOptions(api_key=" ").check()


def test_a_public_address_is_refused_before_anything_is_loaded() -> None:
    provider = ScriptedProvider()
    with pytest.raises(ConfigError, match="no API key"):
        serve(provider, ServerOptions(host="0.0.0.0"))


def test_a_port_in_use_is_refused_and_the_provider_closed() -> None:
    provider = ScriptedProvider()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="--port") as caught:
            serve(provider, ServerOptions(port=port))
    assert caught.value.field == "port"
    assert provider.closed


def test_a_model_that_cannot_be_loaded_is_heard_of_at_once(tmp_path: Path) -> None:
    provider = GGUFProvider(GGUFConfig(model=str(tmp_path / "none.gguf")))
    with pytest.raises(ModelNotFound, match=r"none\.gguf"), serving(provider):
        pass


def test_what_to_install_is_said_where_the_extra_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_extra()
    monkeypatch.setattr("mofa_gguf.server.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'mofa-gguf\[serve\]'"):
        check_extra()


def test_the_command_refuses_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "demo", "--host", "0.0.0.0"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "0.0.0.0 is reached by other machines" in captured.err


def test_the_room_loads_no_web_server_until_it_serves() -> None:
    code = (
        "import sys, mofa_gguf.server, mofa_gguf.cli.main; "
        "sys.exit(bool({'starlette', 'uvicorn', 'numpy', 'llama_cpp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal_and_ends_well(
    tools_model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MOFA_")}
    environment = {**inherited, "MOFA_GGUF_N_THREADS": "1", "MOFA_GGUF_API_KEY": "k"}
    command = [sys.executable, "-m", "mofa_gguf", "serve", str(tools_model), "--port", "0"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("serving gguf at http://127.0.0.1:"), process.communicate()
        url = said.split()[-1]
        body = {
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 300,
            "ignore_eos": True,
            "stream": True,
        }
        request = urllib.request.Request(
            f"{url}/chat/completions",
            json.dumps(body).encode(),
            {"Authorization": "Bearer k"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            answer.readline()
            process.send_signal(number)
            rest = answer.read()
        assert rest.endswith(b"data: [DONE]\n\n")  # an answer that has begun is ended
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()
        process.communicate()
