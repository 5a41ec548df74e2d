"""The server as a machine learning backend of Label Studio."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from maskfree.label.formats.label_studio import packed_mask
from maskfree.results.regions import Region
from maskfree.results.rings import edge_rings
from maskfree.results.segmentation import BACKGROUND, Segmentation
from maskfree.serve.api import FAILURES
from maskfree.serve.errors import Refused, one_line
from maskfree.serve.label_config import LabelingInterface, parse_config
from maskfree.serve.label_studio_photos import LabelStudioPhotos
from maskfree.serve.models import Wanted
from maskfree.serve.service import Service

log = logging.getLogger(__name__)

# Pixels that show none of the labels stay free.
_RULE = "auto"
# Smaller polygons are crumbs that a person would have to delete, as a fraction of the photo.
_MIN_POLYGON = 0.001
# Letters of the weights' hash in the model's version.
_HASH_LETTERS = 8
_MAX_TASKS = 100


class SetupBody(BaseModel):
    """What Label Studio sends when a project is connected."""

    schema_: Annotated[str, Field(alias="schema", description="Labeling interface.")]


class Task(BaseModel):
    """A task to be labeled."""

    data: Annotated[dict[str, Any], Field(description="Its data, with the photo's place.")]


class PredictBody(BaseModel):
    """Tasks for which Label Studio asks predictions."""

    tasks: Annotated[list[Task], Field(min_length=1, max_length=_MAX_TASKS)]
    label_config: Annotated[str, Field(description="Labeling interface.")]


def label_studio_routes(service: Service, photos: LabelStudioPhotos) -> APIRouter:
    """Make the routes that Label Studio asks.

    Args:
        service: Does the work.
        photos: Reads the photos of tasks.

    Returns:
        Routes /health, /setup, /predict, /versions and /webhook.
    """
    router = APIRouter(tags=["Label Studio"], responses=FAILURES)

    def version() -> str:
        model = service.models.loaded[service.models.default]
        return f"{service.models.default} {model.weights_hash[:_HASH_LETTERS]}".strip()

    @router.get("/health", summary="Whether the backend is up")
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "maskfree"}

    @router.post("/setup", summary="Connect a project")
    async def setup(body: SetupBody) -> dict[str, str]:
        await service.in_thread(lambda: parse_config(body.schema_))
        return {"model_version": version()}

    @router.get("/versions", summary="Versions of the model")
    async def versions() -> dict[str, list[str]]:
        return {"versions": [version()]}

    @router.post("/webhook", summary="News of a project, of which nothing is learned")
    async def webhook() -> dict[str, str]:
        return {"status": "ignored"}

    @router.post("/predict", summary="Predict the regions of tasks")
    async def predict(request: Request, body: PredictBody) -> dict[str, Any]:
        config = await service.in_thread(lambda: parse_config(body.label_config))
        wanted = Wanted(service.models.default, config.words, _RULE)

        results, reasons = [], []
        for task in body.tasks:
            prediction: dict[str, Any] = {"result": [], "score": 0.0, "model_version": version()}
            try:
                content = await _read(photos, task.data.get(config.photo_key))
                result = await service.segment(request, content, "photo", wanted)
                prediction |= await service.in_thread(partial(_prediction, result, config))
            except Refused as refused:
                # Another status than "unusable" concerns the whole request.
                if refused.status_code not in (413, 422):
                    raise
                prediction["error"] = refused.detail
                reasons.append(refused.detail)
                log.warning("a task of Label Studio was left out: %s", refused.detail)
            results.append(prediction)

        if len(reasons) == len(body.tasks):
            raise Refused(422, reasons[0])
        return {"results": results, "model_version": version()}

    return router


async def _read(photos: LabelStudioPhotos, reference: object) -> bytes:
    """Bytes of a task's photo."""
    if not isinstance(reference, str):
        raise Refused(422, "a task has no photo under the key of the labeling interface")
    try:
        return await asyncio.to_thread(photos.read, reference)
    except (ValueError, OSError) as error:
        raise Refused(422, one_line(str(error))) from error


def _prediction(result: Segmentation, config: LabelingInterface) -> dict[str, Any]:
    """Regions of a photo as Label Studio draws them, and their mean score."""
    if config.kind == "brushlabels":
        found = [region for region in result if region.name != BACKGROUND]
    else:
        smallest = round(_MIN_POLYGON * result.labels.size)
        connected = result.regions(min_area_px=smallest)
        found = [region for region in connected if region.name != BACKGROUND]

    regions = [
        _described(region, value, config, number)
        for number, (region, value) in enumerate(_shapes(found, config))
    ]
    total = sum(region.area_px for region in found)
    score = sum(region.area_px * _score(region) for region in found) / max(1, total)
    return {"result": regions, "score": round(score, 4)}


def _shapes(
    regions: list[Region], config: LabelingInterface
) -> list[tuple[Region, dict[str, Any]]]:
    """The shapes of regions: a brush mask each, or the polygons of their parts."""
    shapes: list[tuple[Region, dict[str, Any]]] = []
    for region in regions:
        if config.kind == "brushlabels":
            shapes.append((region, {"format": "rle", "rle": list(packed_mask(region.mask))}))
            continue

        # In percent of the photo's sides.
        height, width = region.size
        for ring in edge_rings(region):
            points = (ring * (100 / width, 100 / height)).round(4).tolist()
            shapes.append((region, {"points": points, "closed": True}))
    return shapes


def _described(
    region: Region, value: dict[str, Any], config: LabelingInterface, number: int
) -> dict[str, Any]:
    """A region in Label Studio's words."""
    height, width = region.size
    return {
        "id": f"maskfree{number}",
        "type": config.kind,
        "from_name": config.from_name,
        "to_name": config.to_name,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": round(_score(region), 4),
        "value": value | {config.kind: [config.labels[region.class_id]]},
    }


def _score(region: Region) -> float:
    """Confidence of a region, or its mean score if the model has none."""
    if region.confidence == region.confidence:
        return region.confidence
    return region.score
