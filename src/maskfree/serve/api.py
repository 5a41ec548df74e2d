"""The HTTP interface: photos and words in, label maps out."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import JSONResponse

from maskfree.config.extras import EXTRAS
from maskfree.results.drawing import distinct_colors
from maskfree.serve.answers import json_answer, png_answer
from maskfree.serve.errors import Refused, error_answer
from maskfree.serve.exports import TITLES, export_answer, read_drawn
from maskfree.serve.grid import score_grid
from maskfree.serve.models import Wanted
from maskfree.serve.service import Service, plain_name

# Colors of saved files that the page knows.
_NUM_COLORS = 64
# Longest side of exported labels; their pixels are bounded too.
_MAX_SIDE = 30_000

Refinements = Literal["none", "pamr", "regions"]

_Photo = Annotated[UploadFile, File(description="Photo: JPEG, PNG, WebP and other formats.")]
_Words = Annotated[
    list[str],
    Form(
        description='Class names, repeated or separated by commas; "/" separates synonyms.',
        max_length=1000,
    ),
]
_Model = Annotated[str, Form(description="Name of `/v1/models`; empty: the first.")]
_Background = Annotated[
    str,
    Form(
        description="Background rule: none, scene, auto, words:W,W or threshold:T; empty: scene "
        "for one or two words, else none."
    ),
]
_Templates = Annotated[str, Form(description="Prompts: plain, photo or ensemble.")]
_Refine = Annotated[Refinements, Form(description="Edges that follow the photo.")]

_FAILURES = {
    400: "The form cannot be read",
    401: "No token, or a wrong one",
    403: "Asked by another site's page",
    408: "The request arrived too slowly",
    413: "Too many bytes or pixels",
    422: "Photo, words or options cannot be used",
    429: "Too much is waiting; Retry-After says when to try again",
    503: "It took too long",
}
_ERROR_SCHEMA = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}
FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _ERROR_SCHEMA}}}
    for status, text in _FAILURES.items()
}
"""Answers in OpenAPI of all that takes a photo or words."""

_LABEL_MAP = {
    "description": "Label map as an index PNG, or JSON with regions as run lengths",
    "content": {
        "image/png": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {"schema": {"type": "object"}},
    },
}


def api_routes(service: Service) -> APIRouter:
    """Make the routes of the interface.

    Args:
        service: Does the work.

    Returns:
        Routes under /v1, and those for health checks and Prometheus.
    """
    router = APIRouter()

    @router.post(
        "/v1/segment",
        summary="Label every pixel of a photo with one of the words",
        response_class=Response,
        responses={200: _LABEL_MAP, **FAILURES},
    )
    async def segment(
        request: Request,
        photo: _Photo,
        words: _Words,
        model: _Model = "",
        background: _Background = "",
        templates: _Templates = "",
        refine: _Refine = "none",
        format: Annotated[Literal["png", "json"], Form(description="Form of the answer.")] = "png",
    ) -> Response:
        wanted = _wanted(service, model, words, background, templates, refine)
        content = await _content(photo)
        result = await service.segment(request, content, photo.filename or "", wanted)

        if format == "png":
            return await service.in_thread(lambda: png_answer(result))
        return await service.in_thread(lambda: JSONResponse(json_answer(result)))

    @router.post(
        "/v1/scores",
        summary="Score every patch of a photo for each word",
        response_class=Response,
        responses={200: {"description": "Score map"}, **FAILURES},
    )
    async def scores(
        request: Request,
        photo: _Photo,
        words: _Words,
        model: _Model = "",
        background: Annotated[str, Form(description="As for /v1/segment, but no threshold.")] = "",
        refine: Annotated[Literal["none", "regions"], Form()] = "none",
    ) -> Response:
        if background.strip().startswith("threshold"):
            raise Refused(422, "scores have no background threshold: apply it to them")
        wanted = _wanted(service, model, words, background, "", refine, levels=False)
        level = service.models.loaded[wanted.model].inference.class_level
        content = await _content(photo)

        grid = await service.score(
            request, content, wanted, lambda *parts: score_grid(*parts, class_level=level)
        )
        return await service.in_thread(lambda: JSONResponse(grid | {"model": wanted.model}))

    @router.post(
        "/v1/export",
        summary="Write labels that were changed in the page in a format of annotation tools",
        response_class=Response,
        responses={200: {"description": "PNG, or a zip"}, **FAILURES},
    )
    async def export(
        photo: _Photo,
        format: Annotated[str, Form(description="Name of a format of `/v1/models`.")],
        width: Annotated[int, Form(description="Width of the labels.", ge=1, le=_MAX_SIDE)],
        height: Annotated[int, Form(description="Height of the labels.", ge=1, le=_MAX_SIDE)],
        names: Annotated[str, Form(description="JSON list of names by label.")],
        colors: Annotated[str, Form(description="JSON list of [red, green, blue] by label.")],
        runs: Annotated[
            UploadFile,
            File(description="Label and number of pixels, 32 bits each, row by row; 255: none."),
        ],
        background: Annotated[int, Form(description="Label of the background.")] = -1,
    ) -> Response:
        if width * height > service.limits.max_pixels:
            raise Refused(413, f"{service.limits.max_pixels} pixels are the most")
        content, pairs = await _content(photo), await runs.read()
        name = plain_name(photo.filename or "")

        def write() -> Response:
            drawn = read_drawn(pairs, (height, width), names, colors, background)
            return export_answer(drawn, content, name, format)

        return await service.run(write)

    @router.get(
        "/v1/models",
        summary="Models that are loaded here",
        responses={each: FAILURES[each] for each in (401, 403, 429)},
    )
    async def models() -> dict[str, Any]:
        return {
            "models": [_described(service, name) for name in service.models.loaded],
            "edges": all(find_spec(module) for module in EXTRAS["regions"]),
            "formats": [{"name": name, "title": title} for name, title in TITLES.items()],
            "colors": distinct_colors(_NUM_COLORS).tolist(),
        }

    @router.get("/healthz", summary="Whether the process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", summary="Whether a photo would be taken", responses={503: FAILURES[503]})
    async def readyz() -> Response:
        if service.is_ready:
            return JSONResponse({"status": "ready"})
        return error_answer(503, "not ready: the queue is full, or the server is stopping")

    @router.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, 401: FAILURES[401]},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return router


def _wanted(
    service: Service,
    model: str,
    words: list[str],
    background: str,
    templates: str,
    refine: str,
    levels: bool = True,
) -> Wanted:
    """What a request asks of which model."""
    model = model or service.models.default
    if model not in service.models.loaded:
        names = ", ".join(service.models.loaded)
        raise Refused(422, f"the model {model[:100]!r} is not loaded here: {names}")
    return Wanted(model, tuple(words), background, templates, refine, levels)


async def _content(photo: UploadFile) -> bytes:
    """Bytes of an uploaded photo."""
    content = await photo.read()
    if not content:
        raise Refused(422, "the photo is empty")
    return content


def _described(service: Service, name: str) -> dict[str, Any]:
    """What is said of a loaded model."""
    segmenter = service.models.loaded[name]
    return {
        "name": name,
        "patch_px": segmenter.method.patch_size,
        "side_px": segmenter.inference.side_px,
        "device": str(segmenter.device),
        "weights_sha256": segmenter.weights_hash,
    }
