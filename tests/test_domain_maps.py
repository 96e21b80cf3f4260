from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from sr_utils.checkpoints import load_model, save_model
from sr_utils.deflow import DeFlow, DeFlowConfig, condition_of
from sr_utils.domain_maps import DOMAIN_MAPS, check_map
from sr_utils.errors import UserError
from sr_utils.images import imresize, quantize
from sr_utils.sampling import translate_image
from sr_utils.training import train_deflow
from sr_utils.training_config import DeFlowTraining

SMALL = DeFlowConfig(levels=2, steps=1, hidden=8, features=8, encoder_blocks=1, condition_factor=4)
NOISY = {"bicubic_noise", "additive_noise", "multiplicative_noise", "max_pool_noise"}
MIRRORED = {"bicubic_noise", "downsample_then_denoise", "guided_filter", "non_local_means", "quantised_luminance"}
every_map = pytest.mark.parametrize("name", DOMAIN_MAPS)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def image():
    rough = torch.rand(2, 3, 9, 11, generator=chance())
    return imresize(rough, 8).clamp(0, 1)[:, :, :64, :80]


@every_map
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_h_is_smaller_by_the_factor_and_stays_in_place(name, factor, image):
    h = DOMAIN_MAPS[name](image, None, factor=factor)
    plain = imresize(image, 1 / factor)
    assert h.shape == plain.shape and h.dtype == image.dtype and bool(h.isfinite().all())
    # The same picture, not shifted: brighter or darker it may be, as the largest values of blocks are.
    assert torch.corrcoef(torch.stack([h.flatten(), plain.flatten()]))[0, 1] > 0.7


@every_map
def test_h_is_a_pure_function_of_image_and_generator(name, image):
    h, before = DOMAIN_MAPS[name], image.clone()
    one, again = (h(image, chance(1)) for _ in range(2))
    assert torch.equal(one, again) and torch.equal(image, before)
    assert torch.equal(one, h(image, chance(2))) == (name not in NOISY)
    assert torch.equal(h(image[1:], None), h(image, None)[1:]) or torch.allclose(
        h(image[1:], None), h(image, None)[1:], atol=1e-5
    )


@every_map
def test_a_flat_image_keeps_its_colour(name):
    flat = torch.tensor([0.25, 0.5, 0.75])[:, None, None].expand(1, 3, 32, 32)
    # The learned maps know no flat image by heart, and 32 levels of brightness are half a level off at most.
    assert (DOMAIN_MAPS[name](flat, None) - flat[:, :, :4, :4]).abs().max() < (0.05 if "auto" in name else 0.017)


@every_map
def test_sides_that_the_factor_does_not_divide_are_extended_as_documented(name, image):
    odd = image[:, :, :59, :77]
    replicated = F.pad(odd, (0, 3, 0, 5), mode="replicate")
    h = DOMAIN_MAPS[name]
    assert torch.allclose(h(odd, None), h(replicated, None), atol=1e-5) == (name not in MIRRORED)


@every_map
def test_strength_changes_what_the_map_does(name, image):
    h = DOMAIN_MAPS[name]
    assert not torch.equal(h(image, chance(), strength=0.5), h(image, chance(), strength=2.0))


def test_the_smoothing_maps_hide_white_noise_better_than_block_centres_do(image):
    noisy = image + 0.1 * torch.randn(image.shape, generator=chance())

    def seen(name):
        h = DOMAIN_MAPS[name]
        return (h(noisy, None) - h(image, None)).square().mean().sqrt()

    centres = seen("additive_noise")
    smoothing = ("bicubic_noise", "mean_filter", "gaussian_filter", "median_filter", "bilateral_filter")
    for name in (*smoothing, "guided_filter", "wavelet_band", "denoising_autoencoder", "confusion_autoencoder"):
        assert seen(name) < 0.6 * centres


def test_the_default_condition_is_the_published_one(image):
    assert torch.equal(condition_of(image, 8), quantize(imresize(image, 1 / 8)))
    assert torch.equal(DeFlow(DeFlowConfig()).condition(image), condition_of(image, 8))


@pytest.mark.parametrize("name", ["median_filter", "additive_noise"])
def test_a_flow_trains_continues_and_translates_with_another_map(name, tmp_path, image):
    config = replace(SMALL, domain_map=name, condition_noise=0.0, map_strength=0.5)
    training = DeFlowTraining(steps=2, patch=16, batch=2)
    images = list(image)
    weights = []
    for stops in ((None,), (1, None)):
        torch.manual_seed(0)
        model = DeFlow(config)
        start = {key: value.clone() for key, value in model.state_dict().items()}
        for stop in stops:
            state = tmp_path / f"{name}{len(stops)}.safetensors"
            model.load_state_dict(start)
            train_deflow(model, images, images, training, state_path=state, save_every=1, stop_after=stop)
        weights.append(model.state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key
    save_model(tmp_path / "model.safetensors", model, {})
    loaded = load_model(tmp_path / "model.safetensors", DeFlow)
    assert loaded.config.domain_map == name and loaded.config.map_strength == 0.5
    assert torch.equal(translate_image(loaded, images[0]), translate_image(model, images[0]))
    plain = DeFlow(replace(config, domain_map="bicubic_noise"))
    plain.load_state_dict(model.state_dict())
    assert not torch.equal(translate_image(plain, images[0]), translate_image(model, images[0]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"domain_map": "bicubik"}, "domain_map 'bicubik' is not known"), ({"map_strength": -1.0}, "map_strength=-1")],
)
def test_a_wrong_map_is_one_sentence(change, sentence):
    with pytest.raises(UserError, match=sentence):
        replace(SMALL, **change)


@pytest.mark.parametrize(
    "name,strength,said", [("nope", 1.0, "'nope' is not a map"), ("mean_filter", -1.0, "map_strength")]
)
def test_a_map_or_a_strength_that_cannot_be_is_one_sentence(name, strength, said):
    check_map("mean_filter", 0.0, owner="a notebook")
    with pytest.raises(UserError, match=said):
        check_map(name, strength, owner="a notebook")
