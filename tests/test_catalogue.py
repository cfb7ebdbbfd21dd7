"""What is known of each backbone, before anything is downloaded."""

import pytest
import timm

from sktransfer import UnknownBackboneError, list_backbones
from sktransfer._frozen._backbones import load_backbone
from sktransfer._frozen._catalogue import licence_warning


def test_details_of_a_few_networks():
    table = list_backbones("*resnet18*", details=True)
    assert {"resnet18", "timm/resnet18"} <= set(table.index)
    row = table.loc["timm/resnet18"]
    assert row["size"] == (224, 224)
    assert row["parameters"] == pytest.approx(11.69)
    assert 0.69 < row["accuracy"] < 0.75
    assert (row["licence"], row["commercial"], row["here"]) == ("apache-2.0", True, False)
    assert table.loc["resnet18", "accuracy"] == pytest.approx(0.69758)


def test_the_default_network_is_here_and_no_other(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    table = list_backbones("*lite0", details=True)
    assert list(table.index[table["here"]]) == ["efficientnet_lite0"]
    assert table.loc["efficientnet_lite0", "accuracy"] == pytest.approx(0.7484, abs=1e-3)


def test_a_downloaded_file_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth").touch()
    assert list_backbones("resnet18", details=True)["here"].tolist() == [True]


def test_every_name_has_a_row():
    table = list_backbones(details=True)
    assert table.index.tolist() == list_backbones()
    assert table["accuracy"].notna().sum() > 900
    assert table["accuracy"].dropna().between(0.3, 0.95).all()
    assert (table["commercial"].dropna() == False).sum() > 20  # noqa: E712 - a column of objects


def test_licences_without_commercial_use_are_said():
    assert "'cc-by-nc-4.0', which does not allow commercial use" in licence_warning("convnextv2_atto.fcmae")
    assert licence_warning("resnet18.a1_in1k") is None


def test_warning_comes_with_the_weights(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False: create(name))
    with pytest.warns(UserWarning, match="does not allow commercial use"):
        load_backbone("timm/convnextv2_atto.fcmae")


def test_unknown_tag_names_those_there_are():
    with pytest.raises(UnknownBackboneError, match=r"'resnet18' has no tag 'foo'\. Its tags are a1_in1k"):
        load_backbone("timm/resnet18.foo")
    with pytest.raises(UnknownBackboneError, match="Did you mean 'timm/vit_small_patch14_dinov2'"):
        load_backbone("timm/vit_smal_patch14_dinov2")
