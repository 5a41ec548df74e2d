"""MaskCLIP: what its settings do to scores, and that its text side can be taken over by
a student.
"""

import pytest
import torch
import transformers
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.methods.maskclip.config import MaskCLIPConfig
from maskfree.methods.maskclip.presets import named_preset
from maskfree.methods.maskclip.published import default_inference, maskclip_config, published_clip
from maskfree.methods.student.config import StudentConfig
from maskfree.nn.dense_clip_config import MASKCLIP, NACLIP, PRESETS, TRAINED, VALUE_ONLY
from maskfree.nn.encoder_config import TextEncoderConfig
from maskfree.text.prompts import mean_over_templates
from maskfree.text.templates import TEMPLATES
from tiny import (
    CAPTIONS,
    TINY_CLIP_TEXT,
    TINY_CLIP_VISION,
    tiny_maskclip_config,
    tiny_siglip_config,
)


def pair(**changes):
    """The same weights without and with refinements."""
    plain, refined = (
        tiny_maskclip_config().build().eval(),
        tiny_maskclip_config(**changes).build().eval(),
    )
    for method in (plain, refined):
        method.load_state_dict(plain.state_dict() | {"log_scale": torch.tensor(100.0).log()})
    return plain, refined


@pytest.fixture
def scene():
    images = torch.rand(2, 3, 3, 5).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return images, F.normalize(torch.randn(6, 18), dim=1)


def test_ensemble_of_prompts_equals_the_published_code(fixture_tensors):
    given = fixture_tensors("maskclip_dense")
    texts = given["in.text_template_embeddings"]
    unit = F.normalize(texts.flatten(0, 1), dim=1)
    assert_close(
        mean_over_templates(unit, texts.shape[1]), given["out.text_ensemble"], atol=1e-5, rtol=1e-4
    )


def test_85_prompts():
    assert len(TEMPLATES["maskclip"]) == len(set(TEMPLATES["maskclip"])) == 85
    assert sum("in the scene." in template for template in TEMPLATES["maskclip"]) == 5


@torch.no_grad()
def test_cosines_are_those_of_the_groups(scene):
    method = tiny_maskclip_config().build().eval()
    groups = method.group(scene[0])
    assert_close(method.segment(*scene), groups.spread(groups.embeddings @ scene[1].T))


@torch.no_grad()
def test_dropped_classes_have_the_lowest_cosine_everywhere(scene):
    plain, refined = pair(prompt_denoise=0.9)
    before, after = plain.segment(*scene), refined.segment(*scene)
    highest = (100 * before).softmax(1).amax((2, 3))
    dropped = highest < 0.9
    assert dropped.any() and not dropped.all()
    assert_close(after[~dropped], before[~dropped])
    assert (after[dropped] == -1).all()


@torch.no_grad()
def test_smoothing_takes_the_mean_over_like_keys(scene):
    plain, refined = pair(key_smoothing=1.0)
    before, after = plain.segment(*scene).flatten(2), refined.segment(*scene).flatten(2)
    keys = F.normalize(plain.image.read(scene[0]).keys.flatten(2), dim=1)
    weights = keys.mT @ keys
    expected = torch.einsum("bij,bkj->bki", weights / weights.abs().sum(2, keepdim=True), before)
    unsure = (100 * before).softmax(1).amax(1) < 1
    assert unsure.any()
    assert_close(after, torch.where(unsure[:, None], expected, before), atol=1e-5, rtol=1e-4)


def tiny_clip() -> transformers.CLIPModel:
    config = transformers.CLIPConfig(
        projection_dim=18, text_config=TINY_CLIP_TEXT, vision_config=TINY_CLIP_VISION
    )
    return transformers.CLIPModel(config).eval()


@torch.no_grad()
def test_clip_of_transformers_is_read_whole(tmp_path, tiny_tokenizer):
    model = tiny_clip()
    model.logit_scale.fill_(4.0)
    model.save_pretrained(tmp_path)
    config = maskclip_config(str(tmp_path), "naclip")
    assert config.image.last_block == NACLIP and config.embed_dim == 18
    method = config.build().eval()
    assert method.logit_scale == pytest.approx(54.598, abs=1e-2)
    tokens = tiny_tokenizer(CAPTIONS[:3])
    theirs = model.get_text_features(
        input_ids=tokens.ids, attention_mask=tokens.mask.long()
    ).pooler_output
    assert_close(method.encode_text(tokens), F.normalize(theirs, dim=1), atol=1e-5, rtol=1e-4)
    assert_close(method.image.tower.visual_projection.weight, model.visual_projection.weight)
    stored = config.without_pretrained()
    assert stored.image.weights is None and stored.text.weights is None
    assert stored.build().state_dict().keys() == method.state_dict().keys()


@torch.no_grad()
def test_siglip_reads_texts_filled_up(tmp_path, tiny_tokenizer):
    text = {**TINY_CLIP_TEXT, "projection_size": 24}
    model = transformers.SiglipModel(
        transformers.SiglipConfig(text_config=text, vision_config=TINY_CLIP_VISION)
    ).eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save(tmp_path / "tokenizer.json")
    config, tokenizer = published_clip(str(tmp_path))
    assert config.image.last_block == TRAINED and config.text.architecture == {"pad_token_id": 0}
    tokens = tokenizer(CAPTIONS[:3])
    filled = F.pad(tokens.ids, (0, 32 - tokens.ids.shape[1]))
    theirs = F.normalize(model.get_text_features(input_ids=filled).pooler_output, dim=1)
    assert_close(config.build().eval().encode_text(tokens), theirs, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "config", [tiny_maskclip_config(), tiny_siglip_config()], ids=["clip", "siglip"]
)
def test_student_takes_over_the_text_side(config: MaskCLIPConfig, tiny_tokenizer):
    teacher = config.build().eval()
    student = StudentConfig(
        text=config.text,
        text_projection=config.text_projection,
        embed_dim=config.embed_dim,
        synonyms=(1,),
    )
    text = student.build().text.eval()
    text.load_state_dict(teacher.text.state_dict())
    tokens = tiny_tokenizer(CAPTIONS)
    assert_close(text(tokens), teacher.encode_text(tokens))


def test_nothing_of_it_is_trained():
    assert not [
        name
        for name, each in tiny_maskclip_config().build().named_parameters()
        if each.requires_grad
    ]


def test_view_goes_with_the_last_block():
    assert (
        default_inference(MASKCLIP)[0] == TEMPLATES["maskclip"]
        and default_inference(MASKCLIP)[1].max_whole_px == 896
    )
    for block in (VALUE_ONLY, NACLIP):
        templates, inference = default_inference(block)
        assert templates == TEMPLATES["imagenet"] and (inference.side_px, inference.window_px) == (
            336,
            224,
        )
    assert default_inference(TRAINED, "siglip")[0] == TEMPLATES["siglip"]


def test_bad_settings(tmp_path):
    with pytest.raises(ValueError, match=r"prompt_denoise is 1\.5, must be in"):
        tiny_maskclip_config(prompt_denoise=1.5).build()
    with pytest.raises(ValueError, match="embed_dim is 19: the image tower's embeddings have 18"):
        tiny_maskclip_config(embed_dim=19).build()
    with pytest.raises(ValueError, match="the image tower is a clip's, the text tower a siglip's"):
        tiny_maskclip_config(text=TextEncoderConfig("siglip", TINY_CLIP_TEXT)).build()
    with pytest.raises(ValueError, match=r"the last block 'sclipp' is unknown: trained, maskclip"):
        named_preset("sclipp")
    assert set(PRESETS) >= {"maskclip", "sclip", "naclip", "clearclip"}
    with pytest.raises(FileNotFoundError, match=r"it has no config\.json"):
        maskclip_config(str(tmp_path))
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no CLIP that transformers saved, but vit"):
        maskclip_config(str(tmp_path))
    with pytest.raises(ValueError, match="no tokenizer: set weights"):
        tiny_maskclip_config().tokenizer_source()
