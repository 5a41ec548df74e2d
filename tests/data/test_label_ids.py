"""What published values stand for, against known facts: COCO-Stuff is one off, ADE20K has a zero,
Cityscapes has 34.
"""

import numpy as np
import pytest

from maskfree.data.benchmarks import label_ids
from maskfree.data.benchmarks.label_ids import NOTHING, read_lines, read_renaming
from maskfree.ops.ignore import IGNORE

STUFF = read_lines("coco_stuff171")
COARSE = read_lines("coco_stuff27")
CONTEXT = read_lines("context59")


@pytest.mark.parametrize(
    ("category", "name"),
    [
        *(
            (1, "person"),
            (2, "bicycle"),
            (11, "fire hydrant"),
            (13, "stop sign"),
            (27, "backpack"),
            (46, "wine glass"),
        ),
        *(
            (67, "dining table"),
            (70, "toilet"),
            (90, "toothbrush"),
            (92, "banner"),
            (96, "building other"),
        ),
        *(
            (106, "clouds"),
            (124, "grass"),
            (149, "road"),
            (157, "sky other"),
            (169, "tree"),
            (182, "wood"),
        ),
    ],
)
def test_a_value_of_coco_stuff_is_the_category_less_one(category, name):
    assert STUFF[label_ids.coco_stuff()[category - 1]] == name


def test_coco_stuff_has_171_values_without_those_that_were_removed():
    values = label_ids.coco_stuff()
    assert sorted(values.values()) == list(range(171))
    assert set(range(182)) - set(values) == {
        i - 1 for i in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
    }
    assert values[91] == 80


def test_the_27_coarse_classes_hold_12_groups_of_things_and_15_of_stuff():
    groups = read_renaming("coco_stuff171_to_27")
    assert tuple(groups) == STUFF
    assert set(groups.values()) == set(COARSE)
    things = [group for group in COARSE if group.endswith(" things")]
    assert COARSE[:12] == tuple(things)
    assert all(groups[name].endswith(" things") == (i < 80) for i, name in enumerate(STUFF))
    sizes = {
        group: sum(g == group for g in groups.values())
        for group in ("animal things", "sports things")
    }
    assert sizes == {"animal things": 10, "sports things": 10}


@pytest.mark.parametrize(
    ("category", "group"),
    [
        *(
            (1, "person things"),
            (2, "vehicle things"),
            (18, "animal things"),
            (72, "electronic things"),
        ),
        *(
            (106, "sky stuff"),
            (149, "ground stuff"),
            (155, "water stuff"),
            (169, "plant stuff"),
            (182, "solid stuff"),
        ),
        *(
            (96, "building stuff"),
            (172, "wall stuff"),
            (113, "structural stuff"),
            (114, "floor stuff"),
        ),
    ],
)
def test_a_value_of_coco_stuff_has_a_coarse_class(category, group):
    assert COARSE[label_ids.coarse(label_ids.coco_stuff())[category - 1]] == group


def test_the_coarse_classes_follow_from_converted_maps_too():
    official, converted = label_ids.coco_stuff(), label_ids.identity(171)
    from_raw, from_converted = label_ids.coarse(official), label_ids.coarse(converted)
    assert from_raw == {value: from_converted[i] for value, i in official.items()}


def test_59_of_the_459_values_of_context_are_classes_and_zero_is_none():
    values = label_ids.context()
    assert list(values) == list(range(460))
    assert sorted(i for i in values.values() if i != NOTHING) == list(range(59))
    assert values[0] == values[1] == values[IGNORE] == NOTHING
    names = {
        2: "aeroplane",
        9: "bag",
        59: "car",
        284: "person",
        308: "potted plant",
        427: "tv monitor",
        458: "wood",
    }
    assert {value: CONTEXT[values[value]] for value in names} == names


def test_19_of_the_34_label_ids_of_cityscapes_count():
    values, names = label_ids.cityscapes(), read_lines("cityscapes19")
    assert list(values) == list(range(34))
    assert [i for i in values.values() if i != IGNORE] == list(range(19))
    known = {
        7: "road",
        8: "sidewalk",
        11: "building",
        17: "pole",
        21: "vegetation",
        24: "person",
        26: "car",
    }
    known |= {28: "bus", 31: "train", 33: "bicycle"}
    assert {value: names[values[value]] for value in known} == known
    assert {values[value] for value in (0, 1, 6, 9, 10, 14, 16, 18, 29, 30)} == {
        IGNORE
    }  # rail track, caravan, ...


def test_counted_values_start_at_one():
    assert label_ids.counted(3, IGNORE) == {0: IGNORE, 1: 0, 2: 1, 3: 2}
    assert label_ids.with_void(2) == {0: 0, 1: 1, 2: IGNORE}


def test_the_entities_of_ovsegmentor_are_100_words_for_73_things():
    entities = read_renaming("ovsegmentor_entities")
    assert len(entities) == 100
    assert len(set(entities.values())) == 73
    assert set(entities.values()) <= set(entities)
    assert {
        entities[word] for word in ("lady", "groom", "bike", "TV", "couch", "T-shirt", "monitor")
    } == {*("people", "bicycle", "tv", "sofa", "shirt", "monitor")}
    assert np.sum([name == "people" for name in entities.values()]) == 18
