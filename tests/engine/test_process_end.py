"""A process that ends, or forks, while its engine works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SECONDS = 120.0
"""A process that has not ended by then hangs; starting one takes about one."""

BEGINNING = """
    import asyncio, os, signal, sys, threading, time
    from mofa_gguf.engine.engine import Engine
    from mofa_gguf.engine.errors import EngineClosed
    from mofa_gguf.engine.options import EngineOptions
    from mofa_gguf.engine.requests.request import GenerationRequest
    from mofa_gguf.engine.requests.sampling import SamplingOptions

    engine = Engine.load(sys.argv[1], EngineOptions(n_threads=1, n_ctx=65536))
    # It would take minutes.
    endless = GenerationRequest(
        [65, 66], SamplingOptions(temperature=0), ignore_eos=True, speculation="off"
    )

    def read(stream):
        try:
            for event in stream:
                pass
        except EngineClosed:
            pass

    def read_in_a_thread():
        stream = engine.submit(endless)
        threading.Thread(target=read, args=(stream,), daemon=True).start()
        while not engine.stats().n_generated_tokens:
            time.sleep(0.001)
"""


def run(tiny_model: Path, script: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a process that loads the model and runs the script."""
    source = textwrap.dedent(BEGINNING) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", source, str(tiny_model)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        # A shell that starts tests in the background makes them deaf to interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    return done.returncode, done.stdout, done.stderr


def test_sys_exit_mid_stream_ends_the_process_with_its_code(tiny_model: Path) -> None:
    code, _, errors = run(tiny_model, "read_in_a_thread()\nsys.exit(3)")
    assert (code, errors) == (3, "")


def test_the_end_of_the_script_mid_stream_is_a_clean_end(tiny_model: Path) -> None:
    code, _, errors = run(tiny_model, "read_in_a_thread()")
    assert (code, errors) == (0, "")


def test_an_exception_mid_stream_ends_the_process_with_its_trace(tiny_model: Path) -> None:
    script = """
        for event in engine.submit(endless):
            raise ValueError("in the reader's loop")
    """
    code, _, errors = run(tiny_model, script)
    assert code == 1
    assert errors.splitlines()[-1] == "ValueError: in the reader's loop"


@pytest.mark.parametrize("reader", ["sync", "async"])
def test_an_interrupt_mid_stream_ends_the_process(tiny_model: Path, reader: str) -> None:
    script = """
        def interrupt():
            while engine.stats().n_generated_tokens < 20:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()

        async def read_async():
            async for event in engine.submit(endless):
                pass

    """
    last = "read(engine.submit(endless))" if reader == "sync" else "asyncio.run(read_async())"
    code, _, errors = run(tiny_model, textwrap.dedent(script) + last)
    assert code == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_gets_an_error_and_leaves_its_parent_unharmed(tiny_model: Path) -> None:
    script = """
        def refused(call):
            try:
                call()
            except EngineClosed as error:
                return "fork" in str(error)
            return False

        parents = engine.submit(endless)
        answer = iter(parents)
        next(answer)
        read_in_a_thread()
        child = os.fork()
        if child == 0:
            problems = [
                name
                for name, call in {
                    "submit": lambda: engine.submit(endless),
                    "embed": lambda: engine.embed([[65]]),
                    "save": lambda: engine.save_session([65], "session"),
                    "stream": lambda: next(answer),
                }.items()
                if not refused(call)
            ]
            engine.stats()
            engine.close()
            print("child:", problems, flush=True)
            sys.exit(7 if not problems else 8)  # with all that runs at an interpreter's end
        _, status = os.waitpid(child, 0)
        print("child's code:", os.waitstatus_to_exitcode(status))
        next(answer)
        short = GenerationRequest([65], SamplingOptions(temperature=0), max_tokens=5)
        *_, last = engine.submit(short)
        print("parent:", last.reason)
        engine.close()
    """
    code, output, errors = run(tiny_model, script)
    assert output.splitlines() == ["child: []", "child's code: 7", "parent: length"], errors
    assert code == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_that_forgets_the_engine_ends_as_usual(tiny_model: Path) -> None:
    script = """
        read_in_a_thread()
        children = []
        for _ in range(5):  # at five different moments of the engine's work
            child = os.fork()
            if child == 0:
                del engine
                sys.exit(0)
            children.append(child)
            time.sleep(0.003)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(codes)
    """
    code, output, errors = run(tiny_model, script)
    assert (code, output.strip()) == (0, "[0, 0, 0, 0, 0]"), errors
