"""The server as an ASGI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from maskfree.serve.api import api_routes
from maskfree.serve.errors import answer_errors
from maskfree.serve.guard import Guard
from maskfree.serve.label_studio import label_studio_routes
from maskfree.serve.label_studio_photos import LabelStudioPhotos
from maskfree.serve.limits import Access, Limits
from maskfree.serve.metrics import Metrics
from maskfree.serve.models import Models
from maskfree.serve.service import Service
from maskfree.serve.site import site_routes


def create_app(models: Models, access: Access, limits: Limits) -> FastAPI:
    """Make the app of a server.

    Args:
        models: Loaded models.
        access: Who may ask.
        limits: Bounds of requests.

    Returns:
        The app; its threads run between startup and shutdown.
    """
    metrics = Metrics()
    photos = LabelStudioPhotos(access.label_studio, access.label_studio_key, limits.max_bytes)
    service = Service(models, limits, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="maskfree",
        version=version("maskfree"),
        summary="Label every pixel of a photo with your own words.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere; /api shows the same with files of this package.
        docs_url=None,
        redoc_url=None,
    )
    answer_errors(app)
    app.include_router(api_routes(service))
    app.include_router(label_studio_routes(service, photos))
    app.include_router(site_routes())
    app.add_middleware(Guard, access=access, limits=limits, metrics=metrics)
    return app
