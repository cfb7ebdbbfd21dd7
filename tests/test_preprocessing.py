"""The weights' own geometry, held against torchvision's and timm's transforms; augmentation."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms._presets import ImageClassification

from pictures import noise
from sktransfer._frozen._augmentation import AUGMENTATIONS, _jitter, augment_canvas, resolve_augmentation
from sktransfer._frozen._preprocessing import Preprocessing

TIMM_OPTIONS = [(224, 0.875, "center"), (160, 0.95, "center"), (224, 1.0, "squash"), ((96, 128), 0.9, "center")]
SIZES = [(427, 640), (300, 300), (61, 50), (1000, 333), (224, 256)]


def photo(height, width):
    y, x = np.mgrid[:height, :width]
    waves = [127 * (1 + np.sin(x / (5 + k)) * np.cos(y / (7 - k))) for k in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def normalised(canvas, preprocessing):
    x = torch.from_numpy(canvas.copy()).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return (x - mean) / std


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("crop", "whole"), [(224, 256), (224, 232), (224, 236), (299, 342), (384, 384)])
def test_equals_torchvision(size, crop, whole):
    preprocessing = Preprocessing((crop, crop), crop / whole)
    transform = ImageClassification(crop_size=crop, resize_size=whole, interpolation=InterpolationMode.BILINEAR)
    expected = transform(Image.fromarray(photo(*size)))
    torch.testing.assert_close(normalised(preprocessing.canvas(photo(*size)), preprocessing), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options",
    [
        (224, 0.875, "center", "bicubic"),
        (160, 0.95, "center", "bicubic"),
        (224, 1.0, "squash", "bicubic"),
        ((96, 128), 0.9, "center", "bilinear"),  # timm 1.0.28 is bilinear here whatever it is told
    ],
)
def test_equals_timm(size, options):
    img_size, crop_pct, mode, interpolation = options
    target = (img_size, img_size) if isinstance(img_size, int) else img_size
    preprocessing = Preprocessing(target, crop_pct, interpolation, resize="squash" if mode == "squash" else "crop")
    transform = transforms_imagenet_eval(img_size, crop_pct=crop_pct, crop_mode=mode, interpolation=interpolation)
    expected = transform(Image.fromarray(photo(*size)))
    torch.testing.assert_close(normalised(preprocessing.canvas(photo(*size)), preprocessing), expected)


def test_image_size_overrides_size_alone():
    original = Preprocessing((224, 224), 0.875, "bicubic")
    assert original.with_image_size(None) is original
    assert original.with_image_size(np.int64(96)) == Preprocessing((96, 96), 0.875, "bicubic")
    assert original.with_image_size((64, 96)).canvas(photo(300, 200)).shape == (64, 96, 3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("original", [Preprocessing((224, 224), 0.875, "bicubic"), Preprocessing((96, 96), 0.8)])
def test_without_the_crop_more_is_seen_at_the_same_scale(size, original):
    whole = original.with_image_size(None, crop=False)
    cropped, seen = original.canvas(photo(*size)), whole.canvas(photo(*size))
    margins = [(all_ - part) // 2 for all_, part in zip(seen.shape, cropped.shape, strict=True)]
    assert margins[:2] == [round(side * (1 / original.crop_fraction - 1) / 2) for side in original.size]
    np.testing.assert_array_equal(seen[margins[0] :, margins[1] :][: cropped.shape[0], : cropped.shape[1]], cropped)
    assert whole.least_side == original.least_side  # so the same pixels are decoded


def test_without_the_crop_a_size_of_ones_own_holds_the_whole_image():
    original = Preprocessing((224, 224), 0.875)
    assert original.with_image_size(96, crop=False) == Preprocessing((96, 96), 1.0)
    assert original.with_image_size(96, crop=False).canvas(photo(96, 96)).tolist() == photo(96, 96).tolist()


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 640), (640, 64), (96, 64), (37, 41)])
@pytest.mark.parametrize("image_size", [(96, 96), (64, 97)])
def test_pad_shows_the_whole_image_as_pillow_does(size, image_size):
    preprocessing = Preprocessing((224, 224), 0.875, "bicubic").with_image_size(image_size, resize="pad")
    image = Image.fromarray(photo(*size))
    colour = tuple(round(255 * value) for value in preprocessing.mean)
    expected = ImageOps.pad(image, image_size[::-1], Image.Resampling.BICUBIC, color=colour)
    np.testing.assert_array_equal(preprocessing.canvas(photo(*size)), np.asarray(expected))


def test_squash_shows_the_whole_image():
    preprocessing = Preprocessing((224, 224), 0.875, "bilinear").with_image_size(96, crop=True, resize="squash")
    expected = Image.fromarray(photo(64, 640)).resize((96, 96), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(preprocessing.canvas(photo(64, 640)), np.asarray(expected))
    siglip = Preprocessing((224, 224), 0.9, resize="squash")
    assert siglip.with_image_size(None, resize="crop").resize_mode == "shorter side"


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_extreme_shapes_still_make_a_canvas(size):
    assert Preprocessing((32, 32), 0.875).canvas(photo(*size)).shape == (32, 32, 3)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(64, 64), (32, 48), (2, 3)])
def test_presets_keep_the_size_and_follow_the_seed(name, size):
    augment = resolve_augmentation(name)
    canvas = photo(*size)
    views = [augment_canvas(canvas, augment, seed) for seed in (1, 1, 2, 3, 4)]
    assert all(view.shape == canvas.shape and view.dtype == np.uint8 for view in views)
    np.testing.assert_array_equal(views[0], views[1])
    if size == (64, 64):
        assert len({view.tobytes() for view in views}) == 4


def test_borders_are_mirrored_not_black():
    white = np.full((64, 64, 3), 255, dtype=np.uint8)
    augment = resolve_augmentation("text")
    views = [augment_canvas(white, augment, seed) for seed in range(10)]
    assert min(view.min() for view in views) >= 250


def test_text_is_never_mirrored():
    canvas = np.zeros((64, 64, 3), dtype=np.uint8)
    canvas[:, 40:] = 200  # dark on the left
    augment = resolve_augmentation("text")
    views = [augment_canvas(canvas, augment, seed).astype(int) for seed in range(20)]
    assert all(view[16:48, 5:10].mean() < view[16:48, 54:59].mean() for view in views)
    flipped = [augment_canvas(canvas, resolve_augmentation("photo"), seed).astype(int) for seed in range(20)]
    assert any(view[16:48, 5:10].mean() > view[16:48, 54:59].mean() for view in flipped)


def test_none_passes_through():
    assert resolve_augmentation(None) is None


def test_function_of_the_user_draws_from_the_global_generator_and_leaves_it_as_it_was():
    augment = resolve_augmentation(lambda image: image + torch.randint(0, 99, image.shape, dtype=torch.uint8))
    canvas, before = np.zeros((8, 8, 3), dtype=np.uint8), torch.get_rng_state()
    one, same, other = (augment_canvas(canvas, augment, seed) for seed in (1, 1, 2))
    assert (one == same).all() and (one != other).any()
    assert torch.equal(torch.get_rng_state(), before)


def test_colours_change_as_torchvision_changes_them():
    image = torch.from_numpy(photo(40, 50)).permute(2, 0, 1)
    ours = resolve_augmentation("photo").args[0][-1]
    theirs = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)
    for seed in range(8):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            expected = theirs(image)
        assert torch.equal(ours(image, torch.Generator().manual_seed(seed)), expected)


# --- the warp ---------------------------------------------------------------------------------------------


@pytest.fixture
def extreme(monkeypatch):
    """Make the warp draw its largest rotation, no shift, and its smallest zoom."""
    monkeypatch.setattr(torch, "rand", lambda n, generator: torch.tensor([1.0, 0.5, 0.5, 0.0]))


def _canvas(height, width):
    return torch.from_numpy(noise(3, height, width))


@pytest.mark.parametrize("shape", [(20, 20), (20, 32)])
def test_warp_that_does_nothing(shape):
    canvas = _canvas(*shape)
    assert torch.equal(_jitter(degrees=0, shift=0, zoom=(1, 1))(canvas, None), canvas)


def test_warp_rotates(extreme):
    square, wide = _canvas(20, 20), _canvas(20, 32)
    turned = _jitter(degrees=90, shift=0, zoom=(1, 1))(square, None)
    assert any((turned.int() - torch.rot90(square, k, (1, 2)).int()).abs().max() <= 1 for k in (1, -1))
    upside_down = _jitter(degrees=180, shift=0, zoom=(1, 1))(wide, None)
    assert (upside_down.int() - wide.flip((1, 2)).int()).abs().max() <= 1


def test_warp_keeps_a_disc_round_on_a_wide_canvas(extreme):
    rows, columns = torch.meshgrid(torch.arange(60) - 29.5, torch.arange(100) - 49.5, indexing="ij")
    disc = (255 * (rows**2 + columns**2 < 20**2)).to(torch.uint8).expand(3, -1, -1)
    turned = _jitter(degrees=45, shift=0, zoom=(1, 1))(disc, None)
    changed = (turned > 127) != (disc > 127)
    assert changed[..., 25:75].float().mean() < 0.01  # the mirrored disc comes in at the corners


def test_warp_magnifies(extreme):
    rows, columns = torch.meshgrid(torch.arange(60) - 29.5, torch.arange(100) - 49.5, indexing="ij")
    small, large = ((255 * (rows**2 + columns**2 < r**2)).to(torch.uint8).expand(3, -1, -1) for r in (10, 20))
    magnified = _jitter(degrees=0, shift=0, zoom=(2, 2))(small, None)
    assert ((magnified > 127) != (large > 127)).float().mean() < 0.01


def test_warp_mirrors_at_the_border(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda n, generator: torch.tensor([0.5, 1.0, 0.5, 0.0]))
    canvas = _canvas(20, 20)
    shifted = _jitter(degrees=0, shift=0.25, zoom=(1, 1))(canvas, None)
    assert torch.equal(shifted[..., :15], canvas[..., 5:])
    assert torch.equal(shifted[..., 15:], canvas[..., 15:].flip(-1))
