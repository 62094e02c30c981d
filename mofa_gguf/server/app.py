"""The application: which path is answered by what."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mofa_gguf.contract import LLMProvider
from mofa_gguf.server.answering import ClientLeft, EventStream, unless_left
from mofa_gguf.server.completions import complete, completion_events, read_completion
from mofa_gguf.server.errors import HttpError, Problem, problem_of
from mofa_gguf.server.guard import Counting, Guard
from mofa_gguf.server.json_answer import JsonAnswer
from mofa_gguf.server.metrics import CONTENT_TYPE, HttpCounts, metrics_page
from mofa_gguf.server.options import ServerOptions
from mofa_gguf.server.providers import Reporter, each, model_names
from mofa_gguf.server.reading import Asked, read_body, read_chat, read_embedding
from mofa_gguf.server.writing import chat_events, chat_response, embedding_response

Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(provider: LLMProvider, options: ServerOptions | None = None) -> Starlette:
    """An ASGI application in front of a provider, which stays the caller's to close."""
    options = options or ServerOptions()
    routes = _Routes(provider, options)
    paths: list[tuple[str, str, Endpoint]] = [
        ("POST", "/v1/chat/completions", routes.chat),
        ("POST", "/v1/completions", routes.completions),
        ("POST", "/v1/embeddings", routes.embeddings),
        ("GET", "/v1/models", routes.models),
        ("GET", "/v1/models/{model:path}", routes.model),
        ("GET", "/health", routes.health),
        ("GET", "/metrics", routes.metrics),
    ]
    middleware = [Middleware(Counting, counts=routes.http, paths=[path for _, path, _ in paths])]
    if options.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(options.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
            )
        )
    middleware.append(Middleware(Guard, options=options))
    return Starlette(
        routes=[Route(path, _told(answer), methods=[method]) for method, path, answer in paths],
        middleware=middleware,
        exception_handlers={HTTPException: _unknown_path},
    )


def _told(answer: Endpoint) -> Endpoint:
    """An endpoint whose errors are answers."""

    async def endpoint(request: Request) -> Response:
        try:
            return await answer(request)
        except ClientLeft:
            return Response(status_code=499)  # nobody reads it
        except Exception as error:  # noqa: BLE001 - every request ends with an answer
            return problem_of(error).response()

    return endpoint


async def _unknown_path(request: Request, error: Exception) -> Response:
    """The router's 404 and 405 in OpenAI's shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = (
        f"there is no {request.method} {request.url.path} here; the API is under /v1: "
        "chat/completions, completions, embeddings and models"
    )
    headers = error.headers if isinstance(error, HTTPException) else None
    problem = Problem(status, "invalid_request_error", message)
    return JsonAnswer(problem.to_dict(), status, headers=headers)


class _Routes:
    """What the paths do."""

    def __init__(self, provider: LLMProvider, options: ServerOptions) -> None:
        self._provider = provider
        self._options = options
        self.http = HttpCounts()

    async def chat(self, request: Request) -> Response:
        asked = read_chat(await self._body(request))
        if asked.streams:
            return EventStream(self._chat_events(asked))
        answer = await unless_left(request, self._provider.chat(asked.request))
        return JsonAnswer(chat_response(answer))

    async def _chat_events(self, asked: Asked) -> AsyncGenerator[bytes, None]:
        chunks = self._provider.chat_stream(asked.request)
        closing: Any = aclosing(chunks) if hasattr(chunks, "aclose") else nullcontext(chunks)
        async with closing as stream:
            async for event in chat_events(stream, include_usage=asked.include_usage):
                yield event

    async def completions(self, request: Request) -> Response:
        wanted = read_completion(await self._body(request))
        if wanted.asked.streams:
            return EventStream(completion_events(self._provider, wanted))
        return JsonAnswer(await unless_left(request, complete(self._provider, wanted)))

    async def embeddings(self, request: Request) -> Response:
        body = await self._body(request)
        wanted = read_embedding(body)
        response = await unless_left(request, self._provider.embedding(wanted))
        as_base64 = body.get("encoding_format") == "base64"
        return JsonAnswer(embedding_response(response, as_base64=as_base64))

    async def models(self, request: Request) -> Response:
        names = model_names(self._provider)
        return JsonAnswer({"object": "list", "data": [_model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        known = model_names(self._provider)
        if name not in known:
            raise HttpError(
                404,
                f"there is no model {name!r}; there is {', '.join(known)}",
                code="model_not_found",
                param="model",
            )
        return JsonAnswer(_model(name))

    async def health(self, request: Request) -> Response:
        """That the server answers; with ``?check=true`` also whether the provider can."""
        healthy = True
        if request.query_params.get("check") in ("1", "true"):
            healthy = await unless_left(request, self._provider.health_check())
        stages = {
            model.name: model.stage
            for member in each(self._provider)
            if isinstance(member, Reporter)
            for model in member.status().models
        }
        body = {"status": "ok" if healthy else "error", "models": stages}
        return JsonAnswer(body, 200 if healthy else 503)

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(
            metrics_page(self._provider, self.http), headers={"content-type": CONTENT_TYPE}
        )

    async def _body(self, request: Request) -> dict[str, Any]:
        return await read_body(request, n_bytes_max=self._options.max_body_bytes)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "local"}
