"""A function for the auto-annotation of CVAT, here of task 7.

    cvat-cli task auto-annotate 7 --function-file cvat_function.py -p words=str:building,sky,tree

Labels of the task are matched by name. Needs `pip install 'maskfree[label]' cvat-cli`.
"""

from __future__ import annotations

from collections.abc import Iterator

import cvat_sdk.auto_annotation as cvat
from cvat_sdk.masks import encode_mask
from cvat_sdk.models import LabeledShapeRequest
from PIL import Image

import maskfree

# Smaller regions are left to their neighbors, as a fraction of the photo.
SMALLEST = 0.001


class Function:
    """Labels photos with the words of a task; what is none of them stays free."""

    def __init__(self, words: str, model: str = "pocket", background: str = "auto") -> None:
        names = [word.strip() for word in words.split(",")]
        self._segmenter = maskfree.load(model).with_words(names, background)
        labels = [cvat.label_spec(name.split("/")[0], id) for id, name in enumerate(names)]
        self.spec = cvat.DetectionFunctionSpec(labels=labels)

    def detect(
        self, context: cvat.DetectionFunctionContext, image: Image.Image
    ) -> list[LabeledShapeRequest]:
        """Return the regions of a photo, as masks or as polygons."""
        smallest = round(SMALLEST * image.width * image.height)
        result = self._segmenter(image)

        shapes: list[LabeledShapeRequest] = []
        for region in result.regions(smallest):
            is_sure = region.confidence >= (context.conf_threshold or 0)
            if region.class_id < len(result.words) and is_sure:
                shapes += _shapes(region, context.conv_mask_to_poly)
        return shapes


def _shapes(region: maskfree.Region, as_polygons: bool) -> Iterator[LabeledShapeRequest]:
    """Shapes of a region; polygons of CVAT have no holes."""
    if as_polygons:
        for outer, _ in region.polygons():
            yield cvat.polygon(region.class_id, outer.ravel().tolist())
    else:
        yield cvat.mask(region.class_id, encode_mask(region.mask, region.box))


create = Function
