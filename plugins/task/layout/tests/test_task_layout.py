"""The task on its embedded sample, in both decoding orders: batches, models, predictions, answers, baselines."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from trainkit.binding import bind_model
from trainkit.errors import DataError, UsageError
from trainkit.testing import TaskConformance
from trainkit_task_layout.baselines import Baselines, usual
from trainkit_task_layout.linear import written
from trainkit_task_layout.looks import dsl
from trainkit_task_layout.pix2code import parse_gui
from trainkit_task_layout.relations import anchors
from trainkit_task_layout.sections import write_sections
from trainkit_task_layout.slot_decoder import Canvas
from trainkit_task_layout.task import LayoutTask
from trainkit_task_layout.tree import node

ORDERS = ("diffusion", "left-to-right")
SMALL = {"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "image_size": 64}


class TestLayoutConformance(TaskConformance):
    component = "layout"
    # Data, a whole model and its generation are set here; flat names spare the user a level of nesting.
    most_options = 32

    def written(self, folder):
        write_sections(folder, count=10)
        return folder

    def input_paths(self, data):
        return sorted((data / "test").iterdir())


class TestLayoutFromLeftToRightConformance(TestLayoutConformance):
    options = {"order": "left-to-right"}


@pytest.fixture(scope="module", params=ORDERS)
def fitted(request):
    task = LayoutTask(order=request.param, **SMALL)
    splits = task.read(None, seed=0)
    task.fit(splits.train)
    return task, splits


@pytest.fixture
def small(fitted):
    task, splits = fitted
    torch.manual_seed(0)
    return task, splits, task.build_model()


def test_embedded_sample_has_50_sections_whatever_the_seed(fitted):
    task, splits = fitted
    assert [(name, len(part)) for name, part in splits.items()] == [("train", 35), ("val", 5), ("test", 10)]
    assert task.read(None, seed=7).fingerprint == splits.fingerprint
    assert splits.warnings == ()


def test_batch_has_the_promised_shapes(small):
    task, splits, _ = small
    batch = task.collate(splits.train.__getitems__([0, 1, 2]))
    assert batch["pixel_values"].shape == (3, 3, 64, 64)
    assert batch["pixel_values"].min() >= -1
    assert batch["pixel_values"].max() == 1
    nodes = batch["struct_mask"].shape
    names = ("struct_ids", "depth", "sibling", "struct_parent", "struct_end")
    assert all(batch[name].shape == nodes for name in names)
    assert batch["struct_classes"].shape[:2] == nodes
    assert batch["props"].shape == (3, 3)


def test_subtrees_end_behind_their_last_node(small):
    task, splits, _ = small
    batch = task.collate(splits.train.__getitems__([4]))
    parents, ends = batch["struct_parent"][0].tolist(), batch["struct_end"][0].tolist()
    for here, end in enumerate(ends):
        below = {here}
        for other in range(here + 1, len(parents)):
            if parents[other] in below:
                below.add(other)
        assert end == here + len(below)


def test_learns_four_samples_by_heart_and_generates_them(fitted):
    task, splits = fitted
    order = ORDERS[0] if hasattr(task.order, "grammar") else ORDERS[1]
    task = LayoutTask(order=order, **{**SMALL, "width": 64, "heads": 4}, guidance=1.0, condition_dropout=0.0)
    task.fit(splits.train)
    torch.manual_seed(0)
    model = task.build_model()
    batch = task.collate(splits.train.__getitems__([0, 1, 2, 3]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(200):
        outputs = bind_model(model)(batch)
        chosen = outputs.get("masked", batch["labels"] >= 0)
        loss = F.cross_entropy(outputs["logits"][chosen], batch["labels"][chosen])
        if "pointer_logits" in outputs:
            loss = loss + F.cross_entropy(
                outputs["pointer_logits"][chosen].flatten(0, 1), batch["sources"][chosen].flatten()
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    predicted = task.predict(model, batch, {})
    real = batch["labels"] > 0
    assert (predicted["predictions"] == batch["labels"])[real].float().mean() > 0.98
    right = [a == b for a, b in zip(predicted["predicted_elements"], predicted["target_elements"], strict=True)]
    assert sum(right) >= 3


def test_recomputed_layers_give_the_same_gradient(small):
    task, splits, model = small
    batch = task.collate(splits.train.__getitems__(list(range(4))))
    gradients = []
    for _ in range(2):
        model.zero_grad()
        torch.manual_seed(0)
        bind_model(model)(batch)["logits"].square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.gradient_checkpointing_enable()
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_baselines_know_nothing_of_the_sample(small):
    task, splits, _ = small
    batch = task.collate(splits.test.__getitems__([0, 1]))
    answers = {name: baseline(batch) for name, baseline in task.baselines().items()}
    assert set(answers) == {"all-pad", "majority", "usual"}
    for answer in answers.values():
        assert set(answer) == task.predicts
        assert answer["predictions"].shape == batch["labels"].shape
    assert answers["all-pad"]["predictions"].abs().sum() == 0
    assert answers["all-pad"]["predicted_elements"][0]["base"] == []
    majority = answers["majority"]["predicted_elements"][0]["base"]
    assert len(set(majority)) == 1
    assert len(majority) == len(answers["majority"]["target_elements"][0]["base"])
    assert answers["usual"]["predicted_elements"][0] == answers["usual"]["predicted_elements"][1]


def test_majority_is_the_most_frequent_base_at_every_real_node():
    layouts = [node("section@a", [node("image@b"), node("image@c")]), node("section@a", [node("list@b")])]
    learned = Baselines.learned(layouts)
    assert learned.key == "image"
    shaped = learned.predictors()["majority"](layouts[1])
    assert (shaped["key"], [child["key"] for child in shaped["children"]]) == ("image", ["image"])
    assert [child["key"] for child in learned.predictors()["usual"](layouts[0])["children"]] == ["section"]


def test_usual_elements_are_those_that_more_than_half_have():
    assert usual([["a", "b", "b"], ["a", "b"], ["a", "c", "b", "b"]]) == ["a", "b", "b"]
    assert usual([["b"], ["a"], ["c", "b"], ["d"]]) == ["b"], "nothing is had by more than half: the most common one"
    assert usual([[], []]) == []


def test_state_survives_json(fitted):
    task, splits = fitted
    order = ORDERS[0] if hasattr(task.order, "grammar") else ORDERS[1]
    other = LayoutTask(order=order, **SMALL)
    other.load_state_dict(json.loads(json.dumps(task.state_dict())))
    assert other.state_dict() == task.state_dict()
    samples = splits.test.__getitems__([0, 1])
    assert torch.equal(other.collate(samples)["labels"], task.collate(samples)["labels"])
    other.build_model().load_state_dict(task.build_model().state_dict())


def test_answers_show_screenshot_truth_prediction_and_attention(small):
    task, splits, model = small
    samples = splits.test.__getitems__([0, 1])
    answers = task.answers(model.eval(), task.collate(samples), samples)
    assert [answer.name for answer in answers] == [str(sample["id"]).replace("/", "-") for sample in samples]
    titles = [panel.title for panel in answers[0].panels]
    assert titles[:2] == ["screenshot", "truth"]
    assert "prediction" in titles
    picture = answers[0].panels[0].content
    assert picture.dtype == np.uint8
    assert picture.shape == (384, 384, 3)
    assert answers[0].files[".json"].startswith("{")
    assert answers[0].data["is_right"] in (True, False)


def test_inputs_are_pictures_and_folders_with_or_without_the_truth(tmp_path):
    write_sections(tmp_path / "data", count=10)
    folder = next((tmp_path / "data" / "test").iterdir())
    alone = tmp_path / "page.png"
    Image.open(folder / "screenshot.png").save(alone)
    found = LayoutTask(**SMALL).inputs([alone, folder, tmp_path / "data" / "val"])
    assert len(found) == 2 + len(list((tmp_path / "data" / "val").iterdir()))
    page, sample = found.__getitems__([0, 1])
    assert (page["structure"], page["is_known"]) == (None, False)
    assert sample["structure"] is not None
    assert sample["is_known"]
    assert np.array_equal(page["image"], sample["image"])
    write_envelope(tmp_path / "envelope", folder)
    enveloped = LayoutTask(**SMALL).inputs([tmp_path / "envelope"]).__getitems__([0])[0]
    assert (enveloped["id"], enveloped["is_known"]) == ("page", False)
    assert enveloped["structure"] == sample["structure"]
    (folder / "layout.json").write_text('{"section@div.nowhere": {"heading@h1": ""}}')
    with pytest.raises(DataError) as refused:
        LayoutTask(**SMALL).inputs([folder])
    assert "does not fit the structure" in str(refused.value)
    with pytest.raises(DataError, match="no such input"):
        LayoutTask(**SMALL).inputs([tmp_path / "nothing.png"])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="an input cannot be read") as refused:
        LayoutTask(**SMALL).inputs([tmp_path / "broken.png"])
    assert "do:    repair or remove it" in str(refused.value)


def test_all_inputs_that_cannot_be_read_are_named_at_once(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "good.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "blank.png")
    for number in range(24):
        (tmp_path / f"empty-{number:02d}.png").touch()
    with pytest.raises(DataError) as refused:
        LayoutTask(**SMALL).inputs([tmp_path])
    told = str(refused.value)
    assert "25 of 26 inputs cannot be read" in told
    assert "blank.png: a blank picture" in told
    assert "empty-18.png: an empty picture file" in told
    assert "empty-19.png" not in told
    assert "... and 5 more" in told
    assert "repair or remove them" in told
    empty = tmp_path / "outer" / "inner" / "page"
    empty.mkdir(parents=True)
    with pytest.raises(DataError, match="folders below its pages are not searched"):
        LayoutTask(**SMALL).inputs([tmp_path / "outer"])


def test_a_page_without_a_structure_may_stand_beside_one_that_has_it(small):
    task, splits, model = small
    samples = splits.test.__getitems__([0, 1])
    alone = task.answers(model.eval(), task.collate([samples[1]]), [samples[1]])
    bare = {**samples[0], "structure": None, "layout": node(""), "is_known": False}
    mixed = task.answers(model, task.collate([bare, samples[1]]), [bare, samples[1]])
    assert mixed[1].files[".json"] == alone[0].files[".json"]
    assert "is_right" not in mixed[0].data
    assert "@" not in mixed[0].files[".json"], "there is nothing to point to"


def write_envelope(folder, sample):
    """Write a page as an envelope without its layout."""
    folder.mkdir()
    (folder / "screenshot.png").write_bytes((sample / "screenshot.png").read_bytes())
    with Image.open(sample / "screenshot.png") as picture:
        width, height = picture.size
    screenshot = json.dumps({"path": "screenshot.png", "width": width, "height": height})
    structure = '{"type": "HTMLObject", "data": ' + (sample / "structure.json").read_text() + "}"
    (folder / "example.json").write_text(
        '{"id": "page", "screenshot": ' + screenshot + ', "structure": ' + structure + "}"
    )


def test_validate_remarks_on_layouts_that_are_cut(tmp_path):
    write_sections(tmp_path, count=50)
    found = LayoutTask(**SMALL, max_length=8).inspect(tmp_path)
    assert [finding.rule for finding in found.findings if finding.rule == "cut"]
    assert not any(finding.is_fault for finding in found.findings)
    assert not LayoutTask(**SMALL).inspect(tmp_path).findings


def test_layouts_are_written_in_the_language_they_were_read_from():
    text = "header {\nbtn-active, btn-inactive\n}\nrow {\nsingle {\nsmall-title, text, btn-green\n}\n}\n"
    layout = parse_gui(text)
    assert dsl(layout) == text
    assert written(layout) == text.replace(",", " , ").split()


def test_long_layouts_are_cut_at_subtree_borders_and_counted():
    task = LayoutTask(**SMALL, max_length=8)
    splits = task.read(None, 0)
    assert any("cut at subtree borders" in warning for warning in splits.warnings)
    task.fit(splits.train)
    batch = task.collate(splits.train.__getitems__(list(range(35))))
    assert batch["labels"].shape[1] <= 8
    parents, labels = batch["tree_parent"], batch["labels"]
    above = labels.gather(1, parents.clamp(min=0))
    assert ((above > 0) | (parents < 0) | (labels <= 0)).all(), "no node hangs below an empty slot"


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 100, "patch": 16},
        {"width": 36, "heads": 4},
        {"patch": 24, "image_size": 96},
        {"order": "left-to-right", "keys": "flat"},
        {"scales": (100,)},
        {"scales": (128,)},
        {"scales": (96, 64)},
    ],
)
def test_options_that_contradict_are_refused(options):
    with pytest.raises(UsageError, match=r"task\."):
        LayoutTask(**options)


def test_what_generation_does_not_use_cannot_be_changed():
    reading = {"on_bad_sample", "max_bad_fraction"}
    assert LayoutTask().adjustable == {"steps", "guidance", "guidance_schedule", "temperature"} | reading
    assert LayoutTask(order="left-to-right").adjustable == reading


def test_scales_give_predictions_for_the_same_slots(fitted):
    task = LayoutTask(**{**SMALL, "patch": 16}, scales=(32,))
    task.fit(fitted[1].train)
    model = task.build_model()
    outputs = bind_model(model)(task.collate(fitted[1].train.__getitems__([0, 1, 2])))
    assert outputs["scale_logits"].shape == (3, 2, *outputs["logits"].shape[1:])
    assert torch.equal(outputs["scale_logits"][:, 1], outputs["logits"])
    assert "scale_logits" not in bind_model(model.eval())(task.collate(fitted[1].train.__getitems__([0])))


def test_slots_inherit_what_their_ancestors_are_made_of_over_many_levels():
    deep = 12
    levels = torch.arange(deep)[None]
    sources = torch.full((1, deep, 2), -100)
    sources[0, 0] = torch.tensor([3, 5])
    sources[0, 1] = torch.tensor([7, 9])
    canvas = Canvas(torch.ones(1, deep, dtype=torch.long), levels, levels[..., None], levels - 1, sources)
    assert anchors(canvas, nodes=9).tolist() == [[-1, 5, *[7] * (deep - 2)]], "9 is STOP among nine nodes"
