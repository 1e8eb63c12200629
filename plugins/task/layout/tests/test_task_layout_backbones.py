"""Pretrained backbones: read from local folders, learned or frozen, kept with the run."""

from __future__ import annotations

import builtins
import inspect
import json
import shutil

import pytest
import torch
from torch.nn import functional as F
from trainkit.errors import UsageError
from trainkit_task_layout.backbones import Reader, TextBackbone, VisualBackbone
from trainkit_task_layout.powers import texts_of
from trainkit_task_layout.pretrained import read_backbone
from trainkit_task_layout.task import LayoutTask

transformers = pytest.importorskip("transformers", reason="the optional package transformers is not installed")

SMALL = {"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "image_size": 64}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "div", "section", "##s", "img", "h", "##1", "##2", "p", "-"]
VIT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def splits():
    return LayoutTask(**SMALL).read(None, seed=0)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """Save a tiny ViT of 8 x 8 patches, made for pictures of 32 pixels."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(1)
    transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **VIT)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Save a tiny BERT with a vocabulary of a few tags."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(2)
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=40, **VIT)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


def taken_of(model, batch):
    """Return what the model takes from a batch."""
    return {name: batch[name] for name in inspect.signature(model.forward).parameters if name in batch}


def made(splits, **options):
    task = LayoutTask(**{**SMALL, "guidance": 1.0, **options})
    task.fit(splits.train)
    torch.manual_seed(0)
    model = task.build_model()
    batch = task.collate(splits.train.__getitems__([0, 1, 2]))
    return task, model, batch, taken_of(model, batch)


def test_a_picture_is_seen_as_the_pretrained_model_sees_it(vit):
    backbone = read_backbone("task.visual_backbone", str(vit), "vit")
    assert (backbone.patch, backbone.width) == (8, 24)
    seen = VisualBackbone(backbone, 16).eval()
    reference = transformers.ViTModel.from_pretrained(vit).eval()
    pictures = torch.rand(2, 3, 48, 64) * 2 - 1
    with torch.no_grad():
        states = reference(pictures, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
        torch.testing.assert_close(seen(pictures), seen.project(states).view(2, 6, 8, 16))


def test_pictures_are_standardised_as_the_folder_says(vit, tmp_path):
    folder = shutil.copytree(vit, tmp_path / "other")
    looks = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(looks))
    seen = VisualBackbone(read_backbone("task.visual_backbone", str(folder), "vit"), 16)
    reference = transformers.ViTModel.from_pretrained(folder).eval()
    shares = torch.rand(1, 3, 32, 32)
    mean, spread = (torch.tensor(looks[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    with torch.no_grad():
        states = reference((shares - mean) / spread).last_hidden_state[:, 1:]
        torch.testing.assert_close(seen.eval()(shares * 2 - 1).flatten(1, 2), seen.project(states), atol=1e-5, rtol=0)


def test_a_text_is_the_mean_of_its_tokens_whatever_its_company(bert):
    backbone = read_backbone("task.text_backbone", str(bert), "bert")
    tokens = Reader(backbone.tokenizer, 8).tokens([["div", "section divs img"], ["div"]], 3)
    assert tokens.shape[:2] == (2, 3)
    assert tokens[0, 0].tolist() == tokens[1, 0].tolist() == [2, 5, 3, *[-1] * (tokens.shape[2] - 3)]
    assert tokens[0, 1].tolist() == [2, 6, 5, 7, 8, 3]
    assert (tokens[1, 1:] == -1).all()
    reads = TextBackbone(backbone, 16).eval()
    reference = transformers.BertModel.from_pretrained(bert).eval()
    with torch.no_grad():
        found = reads(tokens)
        for row, place, ids in ((0, 0, [2, 5, 3]), (0, 1, [2, 6, 5, 7, 8, 3]), (1, 0, [2, 5, 3])):
            states = reference(torch.tensor([ids])).last_hidden_state
            torch.testing.assert_close(found[row, place], reads.project(states.mean(dim=1))[0], atol=1e-5, rtol=1e-5)
    assert found.isfinite().all()


def test_a_long_text_is_cut(bert):
    reader = Reader(read_backbone("task.text_backbone", str(bert), "bert").tokenizer, 6)
    (row,) = reader.tokens([["div " * 40]], 1)
    assert row.tolist() == [[2, 5, 5, 5, 5, 3]]


def test_the_text_of_a_node_is_tag_classes_and_annotations():
    leaf = {"key": "img.logo.round['d:flex']", "children": [], "attributes": {"src": "a.png"}}
    structure = {"key": "section", "children": [leaf], "attributes": {}}
    assert texts_of({"structure": structure}) == ["section", "img logo round d:flex"]


@pytest.mark.parametrize("order", ["diffusion", "left-to-right"])
def test_a_task_with_both_backbones_learns_through_them(splits, vit, bert, order):
    options = {"visual_backbone": str(vit), "text_backbone": str(bert), "order": order, "steps": 1}
    task, model, batch, taken = made(splits, **options, patch=24)
    assert set(batch) <= task.gives
    assert batch["struct_tokens"].shape[:2] == batch["struct_mask"].shape
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in transformers.ViTModel.from_pretrained(vit, add_pooling_layer=False).state_dict().items():
        assert torch.equal(before[f"encoder.visual.backbone.{name}"], value)
    outputs = model(**taken)
    F.cross_entropy(outputs["logits"].flatten(0, 1), batch["labels"].flatten()).backward()
    for part in ("encoder.visual.", "encoder.text."):
        names = [name for name, _ in model.named_parameters() if name.startswith(part)]
        gradients = {name: p.grad for name, p in model.named_parameters() if name.startswith(part)}
        assert names
        assert [name for name, gradient in gradients.items() if gradient is None] == []
        assert any(gradient.abs().sum() > 0 for gradient in gradients.values())
    assert len(task.predict(model.eval(), batch, {})["predicted_layouts"]) == 3


def test_the_text_of_a_structure_is_read(splits, bert):
    _, model, _, taken = made(splits, text_backbone=str(bert))
    model.eval()
    other = {**taken, "struct_tokens": taken["struct_tokens"].roll(1, dims=0)}
    assert not torch.equal(model(**taken)["structural_features"], model(**other)["structural_features"])


def test_a_trained_model_needs_no_folder(splits, vit, bert, tmp_path):
    folders = {"vit": shutil.copytree(vit, tmp_path / "v"), "bert": shutil.copytree(bert, tmp_path / "b")}
    options = {"visual_backbone": str(folders["vit"]), "text_backbone": str(folders["bert"]), "steps": 1}
    task, model, _, taken = made(splits, **options)
    state = json.loads(json.dumps(task.state_dict()))
    for folder in folders.values():
        shutil.rmtree(folder)
    again = LayoutTask(**{**SMALL, "guidance": 1.0, **options})
    again.load_state_dict(state)
    assert again.state_dict() == task.state_dict()
    other = again.build_model()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(**taken)["logits"], model.eval()(**taken)["logits"])
    batch = again.collate(splits.test.samples[:2])
    assert torch.equal(batch["struct_tokens"], task.collate(splits.test.samples[:2])["struct_tokens"])
    assert len(again.predict(other, batch, {})["predicted_layouts"]) == 2
    # What a state has told is not asked for again when training goes on.
    again.fit(splits.train)
    assert again.build_model() is not None


def test_the_model_takes_no_memory_on_the_meta_device(splits, vit, bert):
    task, model, _, _ = made(splits, visual_backbone=str(vit), text_backbone=str(bert))
    with torch.device("meta"):
        counted = task.build_model()
    assert all(parameter.is_meta for parameter in counted.parameters())
    assert sum(p.numel() for p in counted.parameters()) == sum(p.numel() for p in model.parameters())


def _fitted_and_built(task, splits) -> None:
    task.fit(splits.train)
    task.build_model()


def refused(splits, match: str, **options) -> str:
    task = LayoutTask(**SMALL, **options)
    with pytest.raises(UsageError, match=match) as caught:
        _fitted_and_built(task, splits)
    return str(caught.value)


def test_a_folder_that_is_not_there_is_refused_without_asking_the_network(splits, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    text = refused(splits, "visual_backbone", visual_backbone="google/vit-base-patch16-224")
    assert "config.json" in text


def test_another_architecture_is_refused(splits, vit, bert):
    assert "'bert'" in refused(splits, "'vit'", visual_backbone=str(bert))
    assert "'vit'" in refused(splits, "'bert'", text_backbone=str(vit))


def test_a_folder_without_weights_or_tokenizer_is_refused(splits, vit, bert, tmp_path):
    folder = shutil.copytree(vit, tmp_path / "v")
    (folder / "model.safetensors").unlink()
    refused(splits, "cannot be read", visual_backbone=str(folder))
    (folder / "model.safetensors").write_bytes(b"damaged")
    refused(splits, "cannot be read", visual_backbone=str(folder))
    from safetensors.torch import load_file, save_file

    weights = load_file(vit / "model.safetensors")
    save_file(dict(list(weights.items())[4:]), folder / "model.safetensors", metadata={"format": "pt"})
    assert "no weights of" in refused(splits, "cannot be read", visual_backbone=str(folder))
    (folder / "config.json").write_text("[]")
    refused(splits, "holds no object", visual_backbone=str(folder))
    wordless = shutil.copytree(bert, tmp_path / "b")
    (wordless / "vocab.txt").write_text("\n".join([*WORDS, "one-too-many"]))
    assert "15 words" in refused(splits, "cannot be read", text_backbone=str(wordless))
    (wordless / "vocab.txt").unlink()
    assert "no tokenizer" in refused(splits, "cannot be read", text_backbone=str(wordless))


def test_pictures_that_do_not_divide_into_its_patches_are_refused(splits, vit):
    task = LayoutTask(**{**SMALL, "image_size": 60}, visual_backbone=str(vit))
    with pytest.raises(UsageError, match="multiple of 8"):
        task.fit(splits.train)


def test_a_backbone_with_nothing_to_look_at_is_refused(splits, bert):
    class Pictures:
        def __len__(self):
            return 4

        def __getitems__(self, indices):
            # Without a structure a source means nothing.
            return [{**splits.train[i], "structure": None} for i in indices]

    task = LayoutTask(**SMALL, text_backbone=str(bert))
    with pytest.raises(UsageError, match="nothing to look at"):
        task.fit(Pictures())


def test_without_transformers_the_package_is_named(splits, vit, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.partition(".")[0] == "transformers":
            raise ImportError("No module named 'transformers'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert "backbones" in refused(splits, "needs the package transformers", visual_backbone=str(vit))
