"""The labeling interface of a Label Studio project: which words, for which photo, drawn how."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

# A thousand labels with colors are half as long.
_MAX_CHARACTERS = 200_000
# Tags of labels that cover pixels, the exact one first, with the type of their regions.
_KINDS = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels"}


@dataclass(frozen=True)
class LabelingInterface:
    """What a labeling interface asks of a model."""

    kind: str
    """Type of the regions: "brushlabels" or "polygonlabels"."""
    from_name: str
    """Name of the labels' tag."""
    to_name: str
    """Name of the photo's tag."""
    photo_key: str
    """Key of the photo in a task's data."""
    labels: tuple[str, ...]
    """Labels as regions must spell them."""

    @property
    def words(self) -> tuple[str, ...]:
        """Words of the labels.

        Returns:
            One per label, in which "/" separates synonyms; a comma is a space, since it would
            separate classes.
        """
        return tuple(" ".join(label.replace(",", " ").split()) for label in self.labels)


def parse_config(text: str) -> LabelingInterface:
    """Read a labeling interface.

    Args:
        text: XML of the interface.

    Returns:
        The brush labels of a photo, or its polygon labels if there are no brush labels.

    Raises:
        ValueError: It is no XML, or has no such labels.
    """
    # Entities that expand each other need a document type, which Label Studio does not write.
    if len(text) > _MAX_CHARACTERS or "<!DOCTYPE" in text:
        raise ValueError("the labeling interface is too long, or has a document type")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"the labeling interface is no XML: {error}") from error

    photos = {tag.get("name", ""): tag.get("value", "") for tag in root.iter("Image")}
    for tag_name, kind in _KINDS.items():
        for tag in root.iter(tag_name):
            to_name = tag.get("toName", "")
            labels = tuple(_spelled(label) for label in tag.iter("Label"))
            if to_name in photos and labels:
                key = photos[to_name].removeprefix("$")
                return LabelingInterface(kind, tag.get("name", ""), to_name, key, labels)

    raise ValueError(
        "the labeling interface has no BrushLabels or PolygonLabels with labels for an Image"
    )


def _spelled(label: ElementTree.Element) -> str:
    """A label as regions spell it."""
    return label.get("alias") or label.get("value", "")
