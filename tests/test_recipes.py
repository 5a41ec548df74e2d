"""Named runs, and the command that starts them."""

import json
from dataclasses import replace

import pytest

from maskfree.cli import main
from maskfree.data.entities.index import FORMAT
from maskfree.engine import run_state
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig
from maskfree.recipes import RECIPES, Run
from maskfree.run_dir import differences
from maskfree.text.tokenize import Tokenizer


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_whole_and_can_be_recorded(name):
    recipe = RECIPES[name]()
    settings = run_state.settings_of(recipe)
    assert json.loads(json.dumps(settings)) == settings
    assert recipe == RECIPES[name]()
    assert RECIPES[name].__doc__


def test_the_paper_is_the_paper():
    recipe = RECIPES["vilseg"]()
    train, method = recipe.train, recipe.method
    assert (train.batch_size, train.learning_rate, train.weight_decay, train.warm_up_steps) == (
        768,
        5e-4,
        0.04,
        4000,
    )
    assert (method.embed_dim, method.cluster.num_clusters, method.vision.num_local_views) == (
        512,
        20,
        6,
    )
    assert (method.image.family, method.text.family, method.vision.out_dim) == ("vit", "clip", 2048)


def test_differences_are_named():
    recipe = RECIPES["vilseg_debug"]()
    other = replace(
        recipe, train=replace(recipe.train, seed=9), method=replace(recipe.method, cluster=None)
    )
    found = differences(run_state.settings_of(recipe), run_state.settings_of(other))
    assert found == ["method.cluster", "train.seed"]


def test_parts_can_be_left_out():
    recipe = RECIPES["vilseg_debug"]()
    assert Run(recipe, leave_out=("method.vision",)).whole() == replace(
        recipe, method=replace(recipe.method, vision=None)
    )
    assert Run(recipe).whole() == recipe


@pytest.mark.parametrize(
    "part", ["method.views", "method.nothing", "train.steps", "vision", "method.vision.head", ""]
)
def test_parts_that_cannot_be_left_out_are_named(part):
    with pytest.raises(ValueError, match=f"'{part}'"):
        Run(RECIPES["vilseg_debug"](), leave_out=(part,)).whole()


def run_command(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments])
    return int(ended.value.code or 0), *capsys.readouterr()


def test_command_takes_every_setting(tmp_path, capsys):
    settings = "--data.shapes 8 --train.steps 1 --train.batch-size 4 --method.grouping pixels"
    settings += " --leave-out method.cluster"
    status, _, _ = run_command(capsys, "vilseg_debug", *settings.split(), "--out", str(tmp_path))
    assert status == 0 and (tmp_path / "model" / "weights.safetensors").is_file()
    method = run_state.read_record(tmp_path)["settings"]["method"]
    assert (method["grouping"], method["cluster"]) == ("pixels", None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vilseg2"], "vilseg_pocket, vilseg_pocket_clusters, vilseg_pocket_tags; not 'vilseg2'"),
        (["vilseg_debug", "--leave-out", "method.text"], "'method.text' cannot be left out"),
        (["vilseg_debug", "--train.steps", "0"], "train.steps is 0"),
        (["vilseg_debug", "--data.shapes", "0"], "exactly one of shards, images and shapes"),
        (["vilseg_debug", "--resume"], "nothing to resume"),
        (["vilseg", "--method.tokenizer", "nowhere/at/all"], "'nowhere/at/all' is no folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, arguments, words):
    status, _, complaint = run_command(capsys, *arguments, "--out", str(tmp_path / "out"))
    assert status == 2
    assert complaint.startswith("maskfree: error: ") and complaint.count("\n") == 1
    assert words in complaint


def test_wrong_option_is_explained(tmp_path, capsys):
    status, _, complaint = run_command(
        capsys, "vilseg_debug", "--train.step", "3", "--out", str(tmp_path)
    )
    assert status == 2 and "--train.steps" in complaint


def test_help_shows_settings(capsys):
    status, shown, _ = run_command(capsys, "vilseg_debug", "--help-all")
    assert status == 0 and "--method.cluster.num-clusters" in shown and "(default: 8)" in shown


def test_the_papers_entities_and_masks_are_the_papers():
    recipe = RECIPES["ovsegmentor"]()
    train, method = recipe.train, recipe.method
    assert (train.batch_size, train.learning_rate, train.weight_decay) == (2048, 3.2e-4, 0.5)
    assert (method.image.dim, method.image.num_groups, sum(method.image.depths)) == (768, 8, 12)
    assert (method.masks.weight, method.masks.start, method.masks.momentum) == (0.1, 30 / 40, 0.99)
    assert (method.form, method.image.form, method.masks.matching) == ("paper", "paper", "paper")
    assert method.entity.weight == 1.0


def test_the_released_stages_fit_each_other():
    first, second = (
        RECIPES[name]() for name in ("ovsegmentor_released", "ovsegmentor_released_masks")
    )
    assert second.init == "runs/ovsegmentor_released"
    assert first.method.masks is None and second.method.masks.start == 0.0
    assert (first.method.image, first.method.entity) == (second.method.image, second.method.entity)
    assert second.method.text == replace(first.method.text, frozen=True)


def test_clips4_is_the_papers():
    recipe = RECIPES["clips4"]()
    train, method = recipe.train, recipe.method
    assert (train.steps, train.batch_size, train.learning_rate, train.schedule) == (
        20_000,
        8,
        1e-3,
        "polynomial",
    )
    assert (method.image.family, method.image.output_stride) == ("resnet", 8)
    assert (method.image_projection.kind, method.embed_dim) == ("pyramid", 512)
    assert len(recipe.templates) == 85


def test_maskclip_plus_is_the_same_student_with_another_loss():
    whole, baseline = (RECIPES[name]() for name in ("clips4_pocket", "maskclip_plus_pocket"))
    method = baseline.method
    assert (method.contrast, method.embedding_weight, method.semantic) == (
        None,
        None,
        None,
    ) and method.pseudo_label_weight == 1.0
    for part in ("image", "image_projection", "text", "views", "teacher", "prototypes"):
        assert getattr(method, part) == getattr(whole.method, part)
    assert (baseline.train, baseline.data, baseline.inference) == (
        whole.train,
        whole.data,
        whole.inference,
    )


@pytest.mark.parametrize(
    ("name", "epochs", "warm_up"),
    [
        ("ovsegmentor", 40, 2),
        ("ovsegmentor_vit_small", 40, 2),
        ("ovsegmentor_released", 30, 2),
        ("ovsegmentor_released_masks", 10, 0),
        ("groupvit", 30, 2),
    ],
)
def test_steps_follow_from_the_pairs_of_the_index(tmp_path, name, epochs, warm_up):
    index = tmp_path / "index"
    index.mkdir()
    summary = {"format": FORMAT, "counts": {"kept": 5000}}
    (index / "index.json").write_text(json.dumps(summary))
    recipe = RECIPES[name]()
    data = replace(recipe.data, index=str(index))

    train = replace(recipe, data=data).with_steps().train
    assert train.steps == epochs * 5000 // recipe.train.batch_size
    assert train.warm_up_steps == warm_up * 5000 // recipe.train.batch_size

    # Another batch size takes another number of steps for the same epochs; given steps stay.
    small = replace(recipe, data=data, train=replace(recipe.train, batch_size=125))
    assert small.with_steps().train.steps == epochs * 40
    given = replace(recipe, data=data, train=replace(recipe.train, steps=77))
    assert given.with_steps() == given


def test_epochs_without_an_index_are_refused(tmp_path, capsys):
    status, _, error = run_command(capsys, "groupvit", "--data.index", "", "--out", str(tmp_path))
    assert status == 2 and "train.steps is 0" in error and "data.index" in error
    empty = ["--data.index", str(tmp_path)]
    status, _, error = run_command(capsys, "groupvit", *empty, "--out", str(tmp_path))
    assert status == 2 and "no entity index" in error


def test_baselines_are_those_of_the_paper():
    groupvit, small = RECIPES["groupvit"](), RECIPES["ovsegmentor_vit_small"]()
    assert groupvit.method.num_labels == 3 and groupvit.train.batch_size == 4096
    assert (small.method.image.dim, small.method.image.num_heads) == (384, 6)
    assert small.train == RECIPES["ovsegmentor"]().train


def test_bert_comes_with_its_tokenizer():
    recipe = RECIPES["ovsegmentor"]()
    assert isinstance(recipe.method, OVSegmentorConfig)
    tokenizer = Tokenizer.from_source(recipe.method.tokenizer_source())
    assert tokenizer.vocabulary_size == 30522 and tokenizer.mask_token == "[MASK]"
    # Ids of BERT's own word list.
    assert tokenizer(["Two dogs"]).ids[0].tolist() == [101, 2048, 6077, 102]


def test_a_missing_tokenizer_is_named_with_its_option(tmp_path, capsys):
    shard = tmp_path / "a.tar"
    shard.write_bytes(bytes(1024))
    options = ["--data.shards", str(shard), "--method.tokenizer", str(tmp_path / "none")]
    status, _, error = run_command(capsys, "vilseg", *options, "--out", str(tmp_path / "run"))
    assert status == 2 and "--method.tokenizer" in error and error.count("\n") == 1
