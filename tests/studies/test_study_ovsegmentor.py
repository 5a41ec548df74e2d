"""OVSegmentor's study from training to tables, with toy networks.

Its variants, its index and its figure.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from maskfree.data import shapes
from maskfree.data.config import DataConfig
from maskfree.data.entities.index import EntityIndex
from maskfree.engine.config import TrainConfig
from maskfree.methods.ovsegmentor.objectives_config import MaskConfig
from maskfree.recipes import ovsegmentor_debug, ovsegmentor_released, vilseg_debug
from studies import ovsegmentor
from studies.options import OVSegmentorOptions
from studies.ovsegmentor import draw
from studies.ovsegmentor_variants import (
    ABLATIONS,
    BASELINE,
    COCO,
    DIRECTIONS,
    ENTITY,
    FULL,
    GROUPS,
    GROUPVIT,
    LABELS,
    LONG,
    MASKS,
    MEASURES,
    NOUNS,
    ONE,
    PAPER_FULL,
    PAPER_MASKS,
    RATIOS,
    SHORT,
    TEXT_WORDS,
    WORDS,
    cell,
    mask_loss,
)
from tiny import tiny_groupvit_config

CHANGES = {ablation.name: ablation.change for ablation in ABLATIONS}


def recipe(num_groups=8, **settings):
    train = TrainConfig(
        **({"steps": 4, "batch_size": 4, "warm_up_steps": 0, "devices": "1"} | settings)
    )
    whole = ovsegmentor_debug()
    image = replace(whole.method.image, patch_px=16, num_groups=num_groups, num_tokens=num_groups)
    data = DataConfig(shapes=20, index="shapes", workers=0, shuffle_buffer=20)
    return replace(
        whole, name="study", method=replace(whole.method, image=image), train=train, data=data
    )


def options(data, tmp_path, **changes):
    settings = {"seeds": (0,), "out": tmp_path / "runs", "results": tmp_path / "results"}
    return OVSegmentorOptions(data, **(settings | changes))


def rows_of(tmp_path, seed=0):
    path = tmp_path / "results" / f"reproduce-ovsegmentor-seed{seed}.json"
    return json.loads(path.read_text())["rows"]


def test_the_study_trains_measures_and_goes_on(data, trained, tmp_path, capsys):
    chosen = options(data, tmp_path, only=(FULL, GROUPS))
    ovsegmentor.reproduce(chosen, recipe())
    assert trained == ["study-ovsegmentor", "study-group-consistency"]
    rows = rows_of(tmp_path)
    assert [row["measure"] for row in rows if row["variant"] == FULL] == [m.name for m in MEASURES]
    assert [row["measure"] for row in rows if row["variant"] == GROUPS] == [m.name for m in SHORT]
    assert all(row["mean_iou"] is not None for row in rows)
    assert "directions" in capsys.readouterr().out
    assert str(tmp_path) not in json.dumps(rows)

    path = tmp_path / "results" / "reproduce-ovsegmentor-seed0.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"rows": rows[:-2]}))
    ovsegmentor.reproduce(chosen, recipe())
    assert len(trained) == 2
    assert [(row["variant"], row["measure"]) for row in rows_of(tmp_path)] == [
        (row["variant"], row["measure"]) for row in rows
    ]
    with pytest.raises(ValueError, match=r"rows of another recipe.train.learning_rate"):
        ovsegmentor.reproduce(chosen, recipe(learning_rate=0.5))


@pytest.mark.slow
def test_every_variant_trains(data, trained, tmp_path):
    ovsegmentor.reproduce(options(data, tmp_path), recipe())
    assert len(trained) == len(set(trained)) == len(ABLATIONS) == 19
    assert {row["variant"] for row in rows_of(tmp_path)} == set(CHANGES)
    assert (tmp_path / "results" / "reproduce-ovsegmentor-ratios-coco-mini.svg").is_file()


def test_groupvit_is_measured_once_beside_it(data, trained, tiny_tokenizer, tmp_path):
    folder = tmp_path / "a-groupvit"
    tiny_groupvit_config().build().tower.save_pretrained(folder)
    tiny_tokenizer.save(folder / "tokenizer.json")
    ovsegmentor.reproduce(
        options(data, tmp_path, seeds=(2, 3), groupvit=str(folder), only=(GROUPVIT,)), recipe()
    )
    assert trained == []
    assert [(row["model"], row["measure"]) for row in rows_of(tmp_path)] == [
        ("a-groupvit", m.name) for m in MEASURES
    ]
    assert [path.name for path in (tmp_path / "results").iterdir()] == [
        "reproduce-ovsegmentor-seed0.json"
    ]


def test_tables_have_seeds_of_their_own(data, tmp_path):
    def names(seed, **changes):
        chosen = options(data, tmp_path, seeds=(0, 1), more_seeds=(1, 5), **changes)
        return {variant.name for variant in ovsegmentor._variants(recipe(), chosen, seed, False)}

    assert names(0) == {FULL, BASELINE, ENTITY, MASKS, PAPER_MASKS, PAPER_FULL}
    assert names(1) == set(CHANGES)
    assert names(5) == set(CHANGES) - {BASELINE, MASKS, PAPER_MASKS, PAPER_FULL}
    assert names(5, tables=(3,)) == set()
    assert names(5, tables=(4,)) == {ENTITY, ONE, NOUNS, LABELS, WORDS, TEXT_WORDS}
    assert names(5, tables=(6,)) == {FULL, GROUPS}


def test_variants_change_what_their_row_names_and_nothing_else():
    method = recipe().method
    assert CHANGES[FULL](method) == method
    assert CHANGES[BASELINE](method) == replace(method, entity=None, masks=None)
    assert CHANGES[ENTITY](method) == replace(method, masks=None)
    assert CHANGES[MASKS](method) == replace(method, entity=None)
    assert CHANGES[PAPER_FULL](method) == replace(method, masks=MaskConfig())
    assert CHANGES[PAPER_MASKS](method) == replace(method, entity=None, masks=MaskConfig())
    changed = {
        ONE: {"masking": "one"},
        NOUNS: {"masking": "nouns"},
        LABELS: {"objective": "labels"},
        WORDS: {"objective": "words"},
        TEXT_WORDS: {"objective": "words_without_groups"},
    }
    for name, changes in changed.items():
        assert CHANGES[name](method) == replace(
            method, entity=replace(method.entity, **changes), masks=None
        )
    assert CHANGES[GROUPS](method) == replace(
        method, masks=replace(method.masks, objective="groups")
    )
    image = replace(method.image, num_groups=16, num_tokens=16)
    wide = replace(method, image=image, masks=replace(method.masks, ratio=0.25))
    assert CHANGES[cell(16, 0.25)](method) == wide
    mixed = ovsegmentor_released().method  # 64 tokens, which are mixed into the groups
    masks = replace(method.masks, ratio=0.5)
    assert CHANGES[cell(16, 0.5)](replace(mixed, masks=masks)).image.num_tokens == 64


def test_rows_say_what_their_mask_loss_is():
    """The recorded rows were made with what the study says of them today."""
    results = Path(__file__).parents[2] / "results"
    before = json.loads((results / "reproduce-ovsegmentor-before-seed0.json").read_text())
    masks = before["settings"]["recipe"]["method"]["masks"]
    assert (masks["symmetric"], masks["keys"]) == (False, "target")

    now = json.loads((results / "reproduce-ovsegmentor-seed0.json").read_text())
    masks = now["settings"]["recipe"]["method"]["masks"]
    assert masks["matching"] == "one_way"
    said = "one photo, momentum keys, scaled logits; weight 0.3 from 30 % on"
    assert mask_loss(FULL) == mask_loss(MASKS) == said
    assert f"weight {masks['weight']:g} from {100 * masks['start']:g} %" in said
    assert mask_loss(BASELINE) == mask_loss(ENTITY) == "none"
    paper = "both photos, online keys, eq. 10; weight 0.1 from 75 % on"
    assert mask_loss(PAPER_FULL) == mask_loss(PAPER_MASKS) == paper


def test_claims_are_about_variants_that_are_measured():
    assert {name for each in DIRECTIONS for name in (each.better, each.worse)} <= set(CHANGES)
    assert {m.name for m in LONG} <= {m.name for m in MEASURES}


def test_what_cannot_be_studied_is_refused(data, tmp_path):
    chosen = options(data, tmp_path)
    with pytest.raises(ValueError, match=r"table 2 is none of the study's: 3, 4, 5, 6"):
        ovsegmentor.reproduce(replace(chosen, tables=(3, 2)), recipe())
    with pytest.raises(ValueError, match=r"no variant 'entity': OVSegmentor, baseline, \+ entity"):
        ovsegmentor.reproduce(replace(chosen, only=(FULL, "entity")), recipe())
    with pytest.raises(
        ValueError, match=r"full method has 8 groups and masks.ratio 0.5, not 6 and 0.5"
    ):
        ovsegmentor.reproduce(chosen, recipe(num_groups=6))
    with pytest.raises(ValueError, match="needs an OVSegmentor recipe with both losses"):
        ovsegmentor.reproduce(replace(chosen, results=tmp_path / "others"), vilseg_debug())


def test_the_index_is_made_once(tmp_path, monkeypatch):
    shapes.write(tmp_path / "data", 12)
    data = DataConfig(shards=(str(tmp_path / "data"),), index=str(tmp_path / "runs" / "entities"))
    study = replace(recipe(), data=data)
    ovsegmentor._prepare(study)
    shards = ovsegmentor.find_shards(data.shards)
    assert len(EntityIndex.open(tmp_path / "runs" / "entities", shards)) == 12
    monkeypatch.setattr(ovsegmentor, "Preparation", None)  # and not again
    ovsegmentor._prepare(study)


def row(variant, mean_iou, seed=0):
    return {
        "variant": variant,
        "seed": seed,
        "measure": COCO.name,
        "mean_iou": mean_iou,
        "parts": {},
    }


def test_the_figure_is_drawn_of_whole_curves(tmp_path):
    stem = tmp_path / "x"
    eight = [row(cell(8, ratio), 0.4 + ratio / 10) for ratio in RATIOS]
    draw(eight[1:], stem)
    assert not list(tmp_path.iterdir())
    draw(eight, stem)
    (path,) = tmp_path.iterdir()
    alone = path.read_text()
    draw([*eight, row(FULL, 0.9, seed=1)], stem)  # a seed that the other ratios lack
    assert path.read_text() == alone
    draw([*eight, *(row(cell(16, ratio), 0.3) for ratio in RATIOS)], stem)
    assert "16 groups" in path.read_text()
    assert "16 groups" not in alone


def write_rows(folder, name, rows, kind=ovsegmentor.KIND):
    content = {"kind": kind, "seed": 0, "model": None, "rows": rows}
    (folder / f"{ovsegmentor.KIND}-{name}.json").write_text(json.dumps(content))


def test_rows_of_the_first_study_are_not_mixed_with_those_of_the_second(tmp_path):
    write_rows(tmp_path, "before-seed0", [row(FULL, 0.1) | {"earlier": True}, row(ONE, 0.2)])
    write_rows(tmp_path, "seed0", [row(FULL, 0.4)])
    write_rows(tmp_path, "other-seed0", [row(FULL, 0.9)], kind="reproduce-ovsegmentor-other")
    rows = ovsegmentor.study_rows(tmp_path)
    assert sorted((each["measure"], each["mean_iou"]) for each in rows) == [
        ("coco-mini", 0.2),
        ("coco-mini", 0.4),
        ("coco-mini, 100 steps", 0.1),
    ]


def test_tables_take_the_study_that_measured_all_their_variants():
    first = [row(variant, 0.1) | {"measure": "coco-mini, 100 steps"} for variant in (FULL, GROUPS)]
    second = [row(FULL, 0.4)]

    def chosen(rows):
        return [each.name for each in ovsegmentor.measured(rows, (FULL, GROUPS), (COCO,))]

    assert chosen([*first, *second]) == ["coco-mini, 100 steps"]
    assert chosen([*first, *second, row(GROUPS, 0.5)]) == ["coco-mini"]
