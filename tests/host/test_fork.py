"""A client in a forked process: an error at once, and its parent unharmed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from mofa_gguf import LLMClient
from mofa_gguf.contract import Other
from mofa_gguf.host.testing import ScriptedProvider

def refused(call):
    try:
        call()
    except Other as error:
        return "fork" in error.message
    return False

client = LLMClient(ScriptedProvider(["one", "two", "three", "four"]))
stream = client.ask_stream("in the parent")
first = next(stream)
child = os.fork()
if child == 0:
    good = refused(lambda: client.ask("a")) and refused(lambda: next(client.ask_stream("b")))
    good = good and refused(lambda: next(stream))
    stream.close()
    client.close()
    del stream, client
    sys.exit(7 if good else 8)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(first + "".join(stream), client.ask("again"))
client.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_of_a_client_gets_errors_and_ends_and_the_parent_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == ["7", "one two"], done.stderr
    assert done.returncode == 0
