import json
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from maskfree.nn.convolutions import FrozenBatchNorm, fold_batch_norms
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.known_settings import known_settings
from maskfree.nn.mobilenet_v2 import DEFAULTS, FIXED, MobileNetV2
from tiny import CAPTIONS, TINY_IMAGE, TINY_TEXT

TRANSFORMER = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 2, 1]}
IMAGE_CONFIGS = {
    "vit": ImageEncoderConfig("vit", TRANSFORMER | {"intermediate_size": 20}),
    "dino": ImageEncoderConfig("dino", TRANSFORMER | {"intermediate_size": 20}),
    "dinov2": ImageEncoderConfig("dinov2", TRANSFORMER | {"mlp_ratio": 2}),
    "dinov3": ImageEncoderConfig(
        "dinov3", TRANSFORMER | {"intermediate_size": 20, "num_register_tokens": 3}
    ),
    "clip": ImageEncoderConfig("clip", TRANSFORMER | {"intermediate_size": 20}),
    "resnet": ImageEncoderConfig("resnet", RESNET),
    "resnet16": ImageEncoderConfig("resnet", RESNET | {"layer_type": "basic"}, output_stride=16),
    "mobilenet16": TINY_IMAGE,
    "efficientnet_lite": ImageEncoderConfig("efficientnet_lite", {"width": 0.2}),
    "mobilenet8": ImageEncoderConfig("mobilenet_v2", TINY_IMAGE.architecture, output_stride=8),
}
TEXT_CONFIGS = {
    "bert": TINY_TEXT,
    "clip": TextEncoderConfig(
        "clip",
        {
            "vocab_size": 400,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 32,
            "eos_token_id": 3,
        },
    ),
}
images_of = pytest.mark.parametrize("config", IMAGE_CONFIGS.values(), ids=IMAGE_CONFIGS)
texts_of = pytest.mark.parametrize("config", TEXT_CONFIGS.values(), ids=TEXT_CONFIGS)


@images_of
def test_features_lie_on_the_patch_grid_at_any_size(config):
    encoder = config.build()
    assert encoder.patch_size in (8, 16, 32)
    for rows, columns in [(3, 5), (5, 2), (1, 1), (4, 4)]:
        images = torch.rand(2, 3, rows * encoder.patch_size, columns * encoder.patch_size)
        features = encoder(images)
        assert features.shape == (2, encoder.channels, rows, columns)
        assert_close(encoder(images[1:]), features[1:], atol=1e-4, rtol=1e-3)
        features.sum().backward()


@images_of
def test_patches_keep_their_place(config):
    """Changing the right end of a wide image moves the features there the most, and the left end's
    less.
    """
    encoder = config.build().eval()
    images = torch.rand(8, 3, 2 * encoder.patch_size, 640)
    changed = images.clone()
    changed[..., -encoder.patch_size :] = torch.rand(
        8, 3, 2 * encoder.patch_size, encoder.patch_size
    )
    with torch.no_grad():
        change = (encoder(changed) - encoder(images)).norm(dim=1).mean((0, 1))
    end = len(change) // 4
    assert change[-end:].sum() > 2 * change[:end].sum()


@pytest.mark.parametrize("family", ["vit", "dino", "dinov2", "dinov3", "clip"])
def test_tokens_go_back_to_their_row_and_column(family):
    encoder = IMAGE_CONFIGS[family].build().eval()
    images = torch.rand(1, 3, 3 * 8, 7 * 8)
    changed = images.clone()
    changed[..., 8:16, 32:40] = 1 - changed[..., 8:16, 32:40]
    with torch.no_grad():
        change = (encoder(changed) - encoder(images)).norm(dim=1)[0]
    assert change.argmax() == 7 * 1 + 4


@images_of
def test_other_sides_are_refused(config):
    encoder = config.build()
    with pytest.raises(ValueError, match="does not divide"):
        encoder(torch.rand(1, 3, encoder.patch_size, encoder.patch_size + 1))


@images_of
def test_image_config_spelled_out_is_the_same_network(config):
    plain = config.without_pretrained()
    assert len(plain.architecture) > len(config.architecture)
    again = ImageEncoderConfig(**json.loads(json.dumps(asdict(plain))))
    first, second = config.build().eval(), again.build().eval()
    second.load_state_dict(first.state_dict())
    images = torch.rand(1, 3, 2 * first.patch_size, 3 * first.patch_size)
    assert_close(second(images), first(images))
    assert again.without_pretrained() == again


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
@pytest.mark.parametrize("in_bottleneck", [False, True])
def test_dilated_resnet_agrees_with_the_strided_one_where_both_look(layer_type, in_bottleneck):
    architecture = RESNET | {"layer_type": layer_type, "downsample_in_bottleneck": in_bottleneck}
    strided = ImageEncoderConfig("resnet", architecture).build().eval()
    for patch_size in (16, 8):
        dense = ImageEncoderConfig("resnet", architecture, output_stride=patch_size).build().eval()
        assert dense.patch_size == patch_size
        dense.load_state_dict(strided.state_dict())
        images, step = torch.rand(1, 3, 96, 160), 32 // patch_size
        assert_close(dense(images)[..., ::step, ::step], strided(images), atol=1e-4, rtol=1e-4)


def test_impossible_strides_are_refused():
    with pytest.raises(ValueError, match="output_stride 5"):
        ImageEncoderConfig("resnet", RESNET, output_stride=5).build()
    with pytest.raises(ValueError, match="patch of 8 px"):
        ImageEncoderConfig("vit", TRANSFORMER, output_stride=4).build()


def test_unknown_field_is_named():
    with pytest.raises(ValueError, match="ViTConfig has no field hiden_size"):
        ImageEncoderConfig("vit", {"hiden_size": 12}).build()


@pytest.mark.parametrize("family", ["resnet16", "mobilenet16"])
def test_statistics_of_batch_norms_stay_as_they_are(family):
    encoder = IMAGE_CONFIGS[family].build().train()
    norms = [module for module in encoder.modules() if isinstance(module, FrozenBatchNorm)]
    assert norms and not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    images = torch.rand(2, 3, 64, 96)
    assert_close(encoder(images), encoder.eval()(images))
    for name, value in encoder.named_buffers():
        assert torch.equal(value, before[name])
    assert all(norm.weight.requires_grad for norm in norms)


def _with_trained_norms(config):
    encoder = config.build().eval()
    for norm in (module for module in encoder.modules() if isinstance(module, FrozenBatchNorm)):
        for tensor in (norm.weight, norm.running_var):
            nn.init.uniform_(tensor, 0.5, 2)
        for tensor in (norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
    return encoder


@pytest.mark.parametrize("family", ["resnet", "resnet16", "mobilenet16", "mobilenet8"])
def test_batch_norms_fold_into_convolutions(family):
    encoder = _with_trained_norms(IMAGE_CONFIGS[family])
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        before = encoder(images)
        fold_batch_norms(encoder)
        assert not any(isinstance(module, FrozenBatchNorm) for module in encoder.modules())
        assert_close(encoder(images), before, atol=1e-5 * before.abs().max().item(), rtol=1e-5)


@pytest.mark.parametrize("tf_padding", [False, True])
@pytest.mark.parametrize("patch_size", [8, 16, 32])
def test_mobilenet_pads_as_the_original(tf_padding, patch_size):
    """Its layers are rebuilt: same weight names, features and gradients as transformers' own."""
    import transformers

    settings = TINY_IMAGE.architecture | {"tf_padding": tf_padding}
    encoder = _with_trained_norms(
        ImageEncoderConfig("mobilenet_v2", settings, output_stride=patch_size)
    )
    configuration = transformers.MobileNetV2Config(**settings, output_stride=patch_size)
    peer = transformers.MobileNetV2Model(configuration, add_pooling_layer=False).eval()
    peer.load_state_dict(encoder.tower.state_dict(), strict=False)
    assert [n for n, _ in peer.named_parameters()] == [
        n for n, _ in encoder.tower.named_parameters()
    ]
    images = torch.rand(2, 3, 64, 96)
    features, expected = encoder(images), peer(images * 2 - 1).last_hidden_state
    assert_close(features, expected, atol=1e-4, rtol=1e-4)
    features.square().sum().backward()
    expected.square().sum().backward()
    for (name, one), (_, other) in zip(
        encoder.tower.named_parameters(), peer.named_parameters(), strict=True
    ):
        scale = other.grad.abs().max().item()
        assert_close(one.grad, other.grad, atol=1e-4 * scale, rtol=1e-3, msg=name)


def test_a_seed_gives_the_same_mobilenet_as_transformers():
    import transformers

    settings = TINY_IMAGE.architecture | {"initializer_range": 0.3, "output_stride": 8}
    torch.manual_seed(5)
    known = known_settings(DEFAULTS, FIXED, settings)
    assert known is not None
    ours = MobileNetV2(known).state_dict()
    torch.manual_seed(5)
    configuration = transformers.MobileNetV2Config(**settings)
    theirs = transformers.MobileNetV2Model(configuration, add_pooling_layer=False).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_frozen_batch_norm_is_batch_norm_in_eval():
    norm = nn.BatchNorm2d(5).eval()
    nn.init.normal_(norm.weight)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    features = torch.randn(2, 5, 3, 4)
    assert_close(FrozenBatchNorm(norm)(features), norm(features))


def test_weights_come_from_a_folder(tmp_path):
    """Also when the file holds more than the tower, and without a word on the terminal."""
    import transformers

    architecture = TRANSFORMER | {"intermediate_size": 20}
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**architecture))
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stored | {"a_field_of_an_older_version": 1}))
    config = ImageEncoderConfig("vit", weights=str(tmp_path))
    encoder = config.build()
    assert_close(encoder.tower.layernorm.weight, model.vit.layernorm.weight)
    for name, value in encoder.tower.state_dict().items():
        assert torch.equal(value, model.vit.state_dict()[name])
    plain = config.without_pretrained()
    assert plain.weights is None and plain.architecture["hidden_size"] == 12
    rebuilt = plain.build()
    rebuilt.load_state_dict(encoder.state_dict())


def test_weights_of_another_network_are_refused(tmp_path):
    import transformers

    transformers.ResNetModel(transformers.ResNetConfig(**RESNET)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="do not fill"):
        ImageEncoderConfig("vit", TRANSFORMER, weights=str(tmp_path)).build()


def test_absent_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no readable weights") as caught:
        ImageEncoderConfig("vit", weights=str(tmp_path)).build()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.real
def test_mobilenet_of_imagenet_knows_its_classes(shared, capfd):
    """The tower inside the whole classifier's file.

    The output stride may be changed when it is loaded.
    """
    import transformers

    folder = str(shared / "weights" / "mobilenet_v2_imagenet")
    encoder = ImageEncoderConfig("mobilenet_v2", weights=folder, output_stride=16).build().eval()
    assert (encoder.channels, encoder.patch_size) == (1280, 16)
    assert capfd.readouterr() == ("", "")
    images = torch.rand(1, 3, 64, 96)
    peer = transformers.MobileNetV2Model.from_pretrained(
        folder, output_stride=16, dtype=torch.float32
    ).eval()
    with torch.no_grad():
        assert_close(encoder(images), peer(images * 2 - 1).last_hidden_state, atol=1e-3, rtol=1e-3)


@texts_of
def test_text_features_ignore_padding_and_see_the_words(config, tiny_tokenizer):
    encoder = config.build().eval()
    together = encoder(tiny_tokenizer(CAPTIONS))
    assert together.shape == (len(CAPTIONS), encoder.channels)
    for row, caption in enumerate(CAPTIONS):
        assert_close(encoder(tiny_tokenizer([caption]))[0], together[row], atol=1e-5, rtol=1e-4)
    assert torch.cdist(together, together).fill_diagonal_(1).min() > 1e-3


@texts_of
def test_text_config_spelled_out_is_the_same_network(config, tiny_tokenizer):
    again = TextEncoderConfig(**json.loads(json.dumps(asdict(config.without_pretrained()))))
    first, second = config.build().eval(), again.build().eval()
    second.load_state_dict(first.state_dict())
    tokens = tiny_tokenizer(CAPTIONS)
    assert_close(second(tokens), first(tokens))


def test_clip_pools_where_transformers_does(tiny_tokenizer):
    encoder = TEXT_CONFIGS["clip"].build().eval()
    tokens = tiny_tokenizer(CAPTIONS)
    peer = encoder.tower(input_ids=tokens.ids, attention_mask=tokens.mask.long()).pooler_output
    assert_close(encoder(tokens), peer)


def test_bert_pools_the_mean_of_its_tokens(tiny_tokenizer):
    encoder = TINY_TEXT.build().eval()
    tokens = tiny_tokenizer([CAPTIONS[0]])
    assert_close(
        encoder(tokens),
        encoder.tower(input_ids=tokens.ids).last_hidden_state.mean(1),
        atol=1e-5,
        rtol=1e-4,
    )


@texts_of
def test_frozen_text_encoder_answers_from_memory(config, tiny_tokenizer, monkeypatch):
    architecture = {
        name: value for name, value in config.architecture.items() if "dropout" not in name
    }
    encoder = TextEncoderConfig(config.family, architecture, frozen=True).build().train()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    first = encoder(tiny_tokenizer(CAPTIONS))
    assert not first.requires_grad
    calls = []
    monkeypatch.setattr(encoder.tower, "forward", lambda **inputs: calls.append(inputs))
    order = [5, 0, 0, 3]
    assert_close(encoder(tiny_tokenizer([CAPTIONS[i] for i in order])), first[order])
    assert not calls


def test_frozen_text_encoder_forgets_when_weights_change(tiny_tokenizer):
    config = TextEncoderConfig("bert", TINY_TEXT.architecture, frozen=True)
    encoder, other = config.build(), config.build()
    tokens = tiny_tokenizer(CAPTIONS)
    encoder(tokens)
    encoder.load_state_dict(other.state_dict())
    assert_close(encoder(tokens), other(tokens))


def test_timm_gives_feature_maps():
    pytest.importorskip("timm", reason="timm, of the extra `zoo`, is not installed")
    encoder = ImageEncoderConfig("timm", {"name": "resnet10t"}, output_stride=16).build()
    assert encoder(torch.rand(2, 3, 64, 96)).shape == (2, encoder.channels, 4, 6)
