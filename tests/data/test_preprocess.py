"""How networks want their images, beside torchvision's and timm's own transforms."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ghostify.data.preprocess import Preprocess, normalise, preprocess_of
from ghostify.data.transforms import to_channels, view
from ghostify.errors import CorruptImageError, DataError
from ghostify.models import zoo
from ghostify.models.torchvision_import import import_beside_torchvision
from ghostify.spec import Origin
from tests.data import sources

MEMORY = Origin("memory", "tests.Net")
RGB = {"channels": 3, "size": (32, 32)}


def of(name: str, sides: tuple[int, ...], **overrides: Any) -> Preprocess:
    built = zoo.build(name, seed=0)
    return preprocess_of(built.model, built.origin, sides, **overrides)


def seen(image: Image.Image, preprocess: Preprocess) -> torch.Tensor:
    pixels = np.ascontiguousarray(view(image, preprocess, 0))
    return normalise(torch.from_numpy(pixels)[None], preprocess)[0]


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "efficientnet_b1", "inception_v3"])
@pytest.mark.parametrize("size", [(375, 500, 3), (500, 333, 3), (240, 240, 3), (30, 41, 3)])
def test_torchvision_networks_see_what_their_weights_saw(name: str, size: tuple[int, ...]) -> None:
    models = import_beside_torchvision("torchvision.models")
    transform = models.get_model_weights(name).DEFAULT.transforms(antialias=True)
    crop = transform.crop_size[0]
    preprocess = preprocess_of(nn.Identity(), Origin("torchvision", name), (3, crop, crop))
    image = Image.fromarray(sources.noise(*size))

    ours = seen(image, preprocess)

    assert torch.allclose(ours, transform(image), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("size", [(375, 500, 3), (333, 257, 3)])
def test_timm_networks_see_what_timm_shows_them(name: str, size: tuple[int, ...]) -> None:
    timm = import_beside_torchvision("timm")
    data = import_beside_torchvision("timm.data")
    model = timm.create_model(name)
    transform = data.create_transform(**data.resolve_model_data_config(model))
    sides = model.pretrained_cfg["input_size"]
    image = Image.fromarray(sources.noise(*size))

    ours = seen(image, preprocess_of(model, Origin("timm", name), sides))

    assert torch.allclose(ours, transform(image), atol=1e-5)


def test_our_cifar_networks_take_images_as_they_are() -> None:
    preprocess = of("resnet20_cifar", (3, 32, 32))

    assert preprocess == Preprocess(
        channels=3,
        size=(32, 32),
        resize=None,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        augment="cifar",
    )


def test_an_unknown_network_is_taken_for_one_of_imagenet() -> None:
    preprocess = preprocess_of(nn.Identity(), MEMORY, (3, 224, 224))

    assert preprocess.resize == 256
    assert preprocess.mean == (0.485, 0.456, 0.406)
    assert preprocess.augment == "imagenet"


def test_a_network_may_say_its_statistics() -> None:
    model = nn.Identity()
    model.mean, model.std = (0.5, 0.5, 0.5), [0.25, 0.25, 0.25]  # type: ignore[assignment]

    preprocess = preprocess_of(model, MEMORY, (3, 224, 224))

    assert (preprocess.mean, preprocess.std) == ((0.5,) * 3, (0.25,) * 3)


def test_buffers_are_no_settings() -> None:
    """A network with such buffers subtracts the mean itself."""
    model = nn.Identity()
    model.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]))

    assert preprocess_of(model, MEMORY, (3, 224, 224)).mean == (0.485, 0.456, 0.406)


def test_overrides_come_first() -> None:
    preprocess = of(
        "resnet18",
        (3, 224, 224),
        mean=(127 / 255,),
        std=(0.5, 0.6, 0.7),
        size=(160, 160),
        interpolation="bicubic",
        augment=None,
    )

    assert preprocess.mean == (127 / 255,) * 3
    assert preprocess.std == (0.5, 0.6, 0.7)
    assert preprocess.size == (160, 160)
    assert preprocess.resize == 182  # 160 * 256 / 224, rounded down
    assert preprocess.augment == "imagenet"


def test_one_channel_takes_the_mean_of_three() -> None:
    preprocess = of("resnet20_cifar", (1, 28, 28))

    assert preprocess.channels == 1
    assert preprocess.mean == pytest.approx((0.449,), abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 4}, "images have 3 channels or 1, so .*: it has 4"),
        ({"size": (0, 32)}, r"the size of an image is HxW, from 1 up \(got \(0, 32\)\)"),
        ({"size": (32,)}, "the size of an image is HxW"),
        ({"resize": 31}, r"--resize must be at least the side of the crop, 32 \(got 31\)"),
        ({"resize": 2.5}, r"--resize is a whole number of pixels \(got 2\.5\)"),
        ({"mean": (0.5, 0.5)}, r"--mean takes one number for each of the 3 channels \(got 2\)"),
        ({"mean": (127, 127, 127)}, r"pixels from 0 to 1 \(got 127, 127, 127\); divide by 255"),
        ({"mean": (float("nan"),) * 3}, "--mean is for pixels from 0 to 1"),
        ({"std": (0, 1, 1)}, r"--std must be above 0 \(got 0, 1, 1\)"),
        ({"interpolation": "bicubik"}, "knows no 'bicubik'; did you mean bicubic?"),
        ({"augment": "mosaic"}, "--augment knows no 'mosaic'; choose from none, flip, cifar"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Preprocess(**(RGB | settings))


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(DataError, match="images have no setting 'colour'"):
        preprocess_of(nn.Identity(), MEMORY, (3, 32, 32), colour="blue")


def test_settings_come_back_from_json() -> None:
    preprocess = of("resnet50", (3, 224, 224))

    assert Preprocess.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess


@pytest.mark.parametrize(
    "change",
    [
        {"mean": "abc"},
        {"mean": [None, 1, 2]},
        {"mean": None},
        {"size": 3},
        {"augment": 4},
        {"channels": None},
        {"more": 1},
    ],
)
def test_damaged_json_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Preprocess.from_json(Preprocess(**RGB).to_json() | change)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_is_that_of_torchvision(channels: int) -> None:
    functional = import_beside_torchvision("torchvision.transforms.v2.functional")
    preprocess = of("resnet20_cifar", (channels, 8, 8))
    batch = torch.from_numpy(sources.noise(5, channels, 8, 8))
    before = batch.clone()

    ours = normalise(batch, preprocess)

    theirs = functional.normalize(batch.float() / 255, preprocess.mean, preprocess.std)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert torch.equal(batch, before)


def test_normalisation_keeps_the_memory_format() -> None:
    batch = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).to(memory_format=torch.channels_last)

    ours = normalise(batch, Preprocess(**RGB))  # type: ignore[arg-type]

    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_an_image_of_another_size_names_the_option() -> None:
    preprocess = Preprocess(**RGB)  # type: ignore[arg-type]

    with pytest.raises(DataError, match="image 7 is 20x33, the network takes 32x32; say by --resi"):
        view(Image.fromarray(sources.noise(20, 33, 3)), preprocess, 7)


def test_an_oblong_crop_is_covered() -> None:
    """What is left around it is in the ratio of resize to the short side."""
    preprocess = Preprocess(channels=3, size=(20, 40), resize=25)
    corners = sources.noise(100, 100, 3)

    pixels = view(Image.fromarray(corners), preprocess, 0)

    assert pixels.shape == (3, 20, 40)
    whole = Image.fromarray(corners).resize((50, 50), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels, np.asarray(whole.crop((5, 15, 45, 35))).transpose(2, 0, 1))


GREY = sources.noise(8, 8)


@pytest.mark.parametrize(
    ("image", "remark"),
    [
        (Image.fromarray(GREY), "greyscale images taken as RGB"),
        (Image.fromarray(GREY).convert("LA"), "transparent greyscale (alpha is left out) images"),
        (Image.fromarray(GREY).convert("RGBA"), "transparent (alpha is left out) images taken"),
        (Image.fromarray(GREY).convert("P"), "palette images taken as RGB"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "16-bit greyscale images taken as RGB"),
        (Image.fromarray(GREY.astype(np.int32) * 257), "16-bit greyscale images taken as RGB"),
    ],
)
def test_every_mode_becomes_rgb(image: Image.Image, remark: str) -> None:
    turned, said = to_channels(image, 3, 0)

    assert said.startswith(remark)
    assert np.array_equal(np.asarray(turned), np.stack([GREY] * 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "HSV", "LAB"])
def test_other_modes_become_what_pillow_makes_of_them(mode: str) -> None:
    image = Image.fromarray(sources.noise(8, 8, 3))
    image = image.convert(mode) if mode != "LAB" else Image.new("LAB", (8, 8))

    turned, said = to_channels(image, 3, 0)

    assert turned.mode == "RGB"
    assert said.endswith("images taken as RGB")


def test_colour_becomes_greyscale_for_one_channel() -> None:
    image = Image.fromarray(sources.noise(8, 8, 3))

    turned, said = to_channels(image, 1, 0)

    assert (turned.mode, said) == ("L", "colour images taken as greyscale")


def test_a_transparent_palette_loses_its_alpha() -> None:
    image = Image.fromarray(GREY).convert("P")
    image.info["transparency"] = bytes([0, 128, 255])

    assert np.array_equal(np.asarray(to_channels(image, 3, 0)[0])[..., 0], GREY)


@pytest.mark.parametrize(
    "pixels", [GREY.astype(np.float32), GREY.astype(np.int32) - 1000, np.full((8, 8), 70000)]
)
def test_numbers_without_a_range_are_corrupt(pixels: Any) -> None:
    image = Image.fromarray(pixels.astype(np.float32 if pixels.dtype.kind == "f" else np.int32))

    with pytest.raises(CorruptImageError, match="have no fixed range; save it as 8-bit"):
        to_channels(image, 3, 0)
