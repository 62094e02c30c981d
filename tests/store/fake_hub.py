"""A hub on 127.0.0.1 that speaks as much of the real one's protocol as a download needs.

Answered are the repository's description, HEAD and GET of a file, ranges, and redirects to
another address for large files, as the real hub does. It counts what it is asked for, and can be
told to drop the connection after some bytes.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

LARGE = 4096  # files from this size on are "LFS" files


class FakeHub:
    """Repositories by name: ``hub.add("org/name", {"file": b"..."})``."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.drop_after: list[int] = []  # bytes to send before dropping, one a request
        self.ignores_ranges = False
        self.damages = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, repo: str, files: dict[str, bytes]) -> None:
        self.repositories[repo] = files

    def commit(self, repo: str) -> str:
        text = repr(sorted(self.repositories[repo].items()))
        return hashlib.sha1(text.encode()).hexdigest()

    def gets(self) -> Counter[str]:
        """How often each file's content was asked for."""
        return Counter(
            path.rsplit("/", 1)[-1] for method, path, _ in self.requests if method == "GET"
        )

    def ranges(self, name: str) -> list[str | None]:
        return [
            asked
            for method, path, asked in self.requests
            if method == "GET" and path.startswith("/cdn/") and path.endswith(name)
        ]

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(hub) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append((self.command, path, self.headers.get("Range")))
                parts = path.strip("/").split("/")
                if parts[0] == "api":
                    self._describe("/".join(parts[2:4]))
                elif parts[0] == "cdn":
                    self._send_file("/".join(parts[1:3]), "/".join(parts[3:]), body=body)
                elif len(parts) > 4 and parts[2] == "resolve":
                    self._resolve("/".join(parts[:2]), "/".join(parts[4:]), body=body)
                else:
                    self._refuse(404, "EntryNotFound")

            def _describe(self, repo: str) -> None:
                if repo in hub.refused:
                    self._refuse(*hub.refused[repo])
                    return
                if repo not in hub.repositories:
                    self._refuse(401, "RepoNotFound")
                    return
                siblings = []
                for name, content in hub.repositories[repo].items():
                    sibling: dict[str, object] = {"rfilename": name, "size": len(content)}
                    if len(content) >= LARGE:
                        sha = hashlib.sha256(content).hexdigest()
                        sibling["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 130}
                    siblings.append(sibling)
                answer = {"id": repo, "sha": hub.commit(repo), "siblings": siblings, "tags": []}
                payload = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def _resolve(self, repo: str, name: str, *, body: bool) -> None:
                content = hub.repositories[repo][name]
                if len(content) < LARGE:
                    self._send_file(repo, name, body=body)
                    return
                self.send_response(302)
                self.send_header("X-Repo-Commit", hub.commit(repo))
                self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(content)))
                self.send_header("Location", f"{hub.endpoint}/cdn/{repo}/{name}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _send_file(self, repo: str, name: str, *, body: bool) -> None:
                content = hub.repositories[repo][name]
                git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                start = 0
                asked = self.headers.get("Range")
                if asked and not hub.ignores_ranges:
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                sent = content[start:]
                self.send_response(206 if start else 200)
                self.send_header("X-Repo-Commit", hub.commit(repo))
                self.send_header("ETag", f'"{git}"')
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                if not body:
                    return
                if hub.damages:
                    sent = bytes(len(sent))
                if hub.drop_after and len(content) >= LARGE:
                    self.wfile.write(sent[: hub.drop_after.pop(0)])
                    self.wfile.flush()
                    self.close_connection = True
                    return
                self.wfile.write(sent)

            def _refuse(self, status: int, code: str) -> None:
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()

        return Handler
