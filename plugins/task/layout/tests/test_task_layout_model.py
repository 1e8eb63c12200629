"""The models of both orders: sizes, masks, noise, generation."""

from __future__ import annotations

import inspect
import math
import random
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from trainkit.errors import UsageError
from trainkit_task_layout import sampler
from trainkit_task_layout.autoregressive import Trail, kind_of
from trainkit_task_layout.canvas import PAD_CLASS, PLACES
from trainkit_task_layout.encoder import PageEncoder
from trainkit_task_layout.layers import ANCESTORS
from trainkit_task_layout.linear import delinearise
from trainkit_task_layout.noise import guided, mask_rate, still_hidden, time_of
from trainkit_task_layout.order_diffusion import STRUCTURE_INPUTS, DiffusionOrder
from trainkit_task_layout.order_words import trail_of, words_of_pointed
from trainkit_task_layout.presets import Size, parameter_count
from trainkit_task_layout.sampler import Sampling, generate
from trainkit_task_layout.slot_decoder import Canvas
from trainkit_task_layout.task import LayoutTask
from trainkit_task_layout.vocabulary import Vocabulary

SMALL = {"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 2, "dropout": 0.0, "image_size": 64}
NO_DROP = {"condition_dropout": 0.0, "guidance": 1.0}


@pytest.fixture(scope="module")
def splits():
    return LayoutTask(**SMALL).read(None, seed=0)


def made(splits, count: int = 6, **options):
    """Return a fitted task, its model in evaluation mode with shaken weights, and a batch."""
    task = LayoutTask(**{**SMALL, **options})
    task.fit(splits.train)
    torch.manual_seed(0)
    model = task.build_model().eval()
    for parameter in model.parameters():
        # Gates begin at 0: a fresh model would look at nothing, and pass whatever its masks are.
        parameter.data += 0.1 * torch.randn_like(parameter)
    return task, model, task.collate(splits.train.__getitems__(list(range(count))))


def taken_of(model, batch):
    """Return what the model takes from a batch."""
    return {name: batch[name] for name in inspect.signature(model.forward).parameters if name in batch}


def canvas_of(batch) -> Canvas:
    return Canvas(
        batch["labels"], batch["slot_levels"], batch["slot_paths"], batch["tree_parent"], batch.get("sources")
    )


def read(model, batch):
    structure = [batch.get(name) for name in STRUCTURE_INPUTS]
    return model.encoder(len(batch["labels"]), batch.get("pixel_values"), *structure)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("micro", 4_200_195), ("small", 12_372_739), ("medium", 27_732_611), ("large", 49_836_547)],
)
def test_presets_have_the_parameters_of_the_reference(preset, expected):
    with torch.device("meta"):
        task = LayoutTask(preset=preset, stem="patch", keys="flat")
        model = task.build_model()
    assert sum(p.numel() for p in model.parameters()) == expected == parameter_count(task.size)


def test_the_variant_of_1_2_million_has_the_parameters_of_the_reference():
    size = Size(96, 4, 3, 4, 16, 128, 1000, 256)
    with torch.device("meta"):
        encoder = PageEncoder(size.width, size.heads, size.encoder_layers, size.patch, size.structure_words)
        noise = {"schedule": "cosine", "condition_dropout": 0.1, "part_dropout": 0.0, "scales": ()}
        model = DiffusionOrder(size, 256, True, 0.0, 0.0, noise).build(encoder)
    assert sum(p.numel() for p in model.parameters()) == 1_239_715 == parameter_count(size)


def test_where_padding_stands_and_what_it_holds_changes_nothing(splits):
    _, model, batch = made(splits)
    torch.manual_seed(1)
    hidden = (torch.rand(batch["labels"].shape) < 0.5) & (batch["slot_levels"] >= 0)
    times = torch.linspace(0.2, 0.9, len(hidden))
    memory, canvas = read(model, batch), canvas_of(batch)
    before = model.outputs(model.decoder(canvas, hidden, times, memory), memory, canvas)
    nowhere = ~batch["struct_mask"]
    assert nowhere.any()
    other = {**batch, "struct_ids": batch["struct_ids"].masked_fill(nowhere, 7)}
    other["depth"], other["sibling"] = batch["depth"].masked_fill(nowhere, 3), batch["sibling"].masked_fill(nowhere, 5)
    # Padding slots move between the real ones, whose order stays.
    generator, spread = random.Random(0), []
    for row in batch["slot_levels"]:
        real = (row >= 0).nonzero().flatten().tolist()
        places = sorted(generator.sample(range(len(row) + 4), len(real)))
        spread.append(dict(zip(real, places, strict=True)))
    moved = {"slot_levels": -1, "labels": -100, "tree_parent": -1, "slot_paths": -1, "sources": -100}
    for name, value in moved.items():
        old = batch[name]
        new = torch.full((old.shape[0], old.shape[1] + 4, *old.shape[2:]), value)
        for i, places in enumerate(spread):
            for slot, place in places.items():
                new[i, place] = old[i, slot]
        other[name] = new
    for i, places in enumerate(spread):
        for place in places.values():
            parent = int(other["tree_parent"][i, place])
            other["tree_parent"][i, place] = places[parent] if parent >= 0 else -1
    hidden_there = torch.zeros(other["labels"].shape, dtype=torch.bool)
    for i, places in enumerate(spread):
        for slot, place in places.items():
            hidden_there[i, place] = hidden[i, slot]
    memory, canvas = read(model, other), canvas_of(other)
    after = model.outputs(model.decoder(canvas, hidden_there, times, memory), memory, canvas)
    for name in ("logits", "pointer_logits", "box_predictions"):
        for i, places in enumerate(spread):
            there = after[name][i, list(places.values())]
            torch.testing.assert_close(there, before[name][i, list(places)], atol=1e-4, rtol=1e-4)


def test_a_hidden_slot_learns_nothing_of_labels_at_its_own_level_or_below(splits):
    _, model, batch = made(splits)
    memory, times = read(model, batch), torch.full((6,), 0.5)
    classes = model.decoder.known_classes
    torch.manual_seed(1)
    for level in range(1, 3):
        at_level = batch["slot_levels"] == level
        hidden = at_level | ((torch.rand(at_level.shape) < 0.5) & (batch["slot_levels"] >= 0))
        changed = torch.where(at_level, (batch["labels"] + 1) % classes, batch["labels"])
        before = model.decoder.score(model.decoder(canvas_of(batch), hidden, times, memory))
        after = model.decoder.score(model.decoder(canvas_of({**batch, "labels": changed}), hidden, times, memory))
        unaware = hidden & (batch["slot_levels"] <= level)
        torch.testing.assert_close(before[unaware], after[unaware], atol=1e-5, rtol=1e-5)
        below = hidden & (batch["slot_levels"] == level + 1)
        assert (before - after)[below].abs().max() > 1e-3, "slots below look at the levels above"


def test_a_visible_slot_is_seen_at_its_level_and_not_above(splits):
    _, model, batch = made(splits)
    memory, times = read(model, batch), torch.full((6,), 0.5)
    level = batch["slot_levels"]
    hidden = (torch.arange(level.shape[1]) % 2 == 0)[None] & (level >= 0)
    shown = (level == 2) & ~hidden
    changed = torch.where(shown, (batch["labels"] + 1) % model.decoder.known_classes, batch["labels"])
    before = model.decoder.score(model.decoder(canvas_of(batch), hidden, times, memory))
    after = model.decoder.score(model.decoder(canvas_of({**batch, "labels": changed}), hidden, times, memory))
    above = hidden & (level < 2)
    torch.testing.assert_close(before[above], after[above], atol=1e-5, rtol=1e-5)
    assert (before - after)[hidden & (level == 2)].abs().max() > 1e-3


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_generation_meets_the_conditions_of_training(splits, level):
    _, model, batch = made(splits)
    memory, levels = read(model, batch), batch["slot_levels"]
    hidden, times = levels == level, torch.ones(6)
    trained = model.decoder(canvas_of(batch), hidden, times, memory)
    known = int((levels <= level).sum(1).max())
    cut = canvas_of({name: value[:, :known] for name, value in batch.items() if torch.is_tensor(value)})
    cut.levels = cut.levels.masked_fill(cut.levels > level, -1)
    cut.labels = cut.labels.masked_fill(hidden[:, :known], PAD_CLASS)
    made_now = model.decoder.denoise(cut, hidden[:, :known], hidden[:, :known], times, memory)
    assert hidden.any()
    torch.testing.assert_close(made_now[hidden[:, :known]], trained[hidden], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_uncovered_stays_and_nothing_stays_hidden(splits, monkeypatch, temperature):
    task, model, batch = made(splits, **NO_DROP)
    given = []
    scores = sampler._scores

    def spied(model, canvas, hidden, active, *rest):
        given.append((canvas.labels.clone(), hidden.clone(), canvas.levels.clone()))
        return scores(model, canvas, hidden, active, *rest)

    monkeypatch.setattr(sampler, "_scores", spied)
    torch.manual_seed(0)
    memory = read(model, batch)
    with torch.no_grad():
        result = generate(
            model,
            lambda _: memory,
            task.order.grammar,
            64,
            Sampling(4, temperature=temperature),
            batch["struct_parent"],
        )
    assert len(given) > 4
    for labels, hidden, levels in given:
        count = labels.shape[1]
        known = (levels >= 0) & ~hidden
        assert torch.equal(result.classes[:, :count][known], labels[known])
    assert result.classes.max() < model.decoder.mask_class
    assert (result.classes >= -1).all()


def test_a_level_without_hidden_slots_is_returned_as_it_is(splits):
    _, model, batch = made(splits)
    canvas = replace(canvas_of(batch), sources=batch["sources"].masked_fill(batch["sources"] < 0, -1))
    with torch.no_grad():
        memory = read(model, batch)
        used = torch.zeros_like(memory.node_mask)
        after, used, _ = sampler._uncover(model, canvas, 99, [memory], Sampling(4), used, batch["struct_parent"])
    assert torch.equal(after.labels, canvas.labels)
    assert torch.equal(after.sources, canvas.sources)
    assert not used.any()


def test_slots_that_stay_hidden_follow_the_cosine():
    sixteen = torch.tensor([16])
    assert [int(still_hidden(sixteen, step, 8)) for step in range(1, 9)] == [15, 14, 13, 11, 8, 6, 3, 0]
    assert int(still_hidden(torch.tensor([1]), 1, 1)) == 0


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_time_is_the_inverse_of_the_mask_rate(schedule):
    times = torch.linspace(0.001, 1, 50)
    torch.testing.assert_close(time_of(mask_rate(times, schedule), schedule), times, atol=1e-3, rtol=0)


def test_guidance_has_the_numbers_of_the_reference():
    given, free = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0])
    torch.testing.assert_close(guided(given, free, 0.0).exp(), torch.full((3,), 1 / 3))
    expected = torch.tensor([0.66524, 0.24473, 0.09003])
    torch.testing.assert_close(guided(given, free, 1.0).exp(), expected, atol=1e-5, rtol=0)
    expected = torch.tensor([0.999447, 0.000553, 3e-7])
    torch.testing.assert_close(guided(given, free, 7.5).exp(), expected, atol=1e-6, rtol=0)
    impossible = guided(torch.tensor([0.0, -math.inf]), torch.tensor([0.0, -math.inf]), 7.5)
    assert impossible.tolist() == [0.0, -math.inf]


def test_guidance_does_not_change_how_many_slots_are_uncovered(splits, monkeypatch):
    task, model, batch = made(splits)
    counts = {}
    for scale in (1.0, 7.5):
        seen, memory = [], read(model, batch)
        scores = sampler._scores

        def spied(model, canvas, hidden, *rest, seen=seen, scores=scores):
            if canvas.levels.max() == 0:
                seen.append(hidden.sum(1).tolist())
            return scores(model, canvas, hidden, *rest)

        monkeypatch.setattr(sampler, "_scores", spied)
        grammar = replace(task.order.grammar, roots=16)
        with torch.no_grad():
            generate(model, lambda _, memory=memory: memory, grammar, 64, Sampling(8, scale), batch["struct_parent"])
        counts[scale] = seen
        monkeypatch.setattr(sampler, "_scores", scores)
    assert counts[1.0] == counts[7.5]
    assert [row[0] for row in counts[1.0]] == [16, 15, 14, 13, 11, 8, 6, 3]


def test_guidance_without_condition_dropout_is_refused(splits):
    with pytest.raises(UsageError, match="guidance"):
        LayoutTask(condition_dropout=0.0, guidance=7.5)
    task, model, batch = made(splits, condition_dropout=0.0, guidance=1.0)
    assert len(task.predict(model, batch, {})["predicted_layouts"]) == len(batch["layouts"])


def test_null_condition_hides_page_and_structure(splits):
    from trainkit_task_layout.encoder import Dropping

    _, model, batch = made(splits)
    changed = {**batch, "pixel_values": -batch["pixel_values"], "struct_ids": batch["struct_ids"].roll(1, dims=1)}
    memories = []
    for page in (batch, changed):
        structure = [page.get(name) for name in STRUCTURE_INPUTS]
        structure[1:4] = [torch.zeros_like(part) for part in structure[1:4]]
        dropping = Dropping.of_all(6, torch.device("cpu"))
        memories.append(model.encoder(6, page["pixel_values"], *structure, dropping).states)
    torch.testing.assert_close(*memories)


def test_learns_eight_samples_by_heart(splits):
    task = LayoutTask(
        width=64, heads=4, encoder_layers=1, decoder_layers=2, dropout=0.0, image_size=64, **NO_DROP, stem="patch"
    )
    task.fit(splits.train)
    torch.manual_seed(0)
    model = task.build_model()
    batch = task.collate(splits.train.__getitems__(list(range(8))))
    taken = taken_of(model, batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=300)
    right = total = 0
    for step in range(300):
        outputs = model(**taken)
        hidden = outputs["masked"]
        F.cross_entropy(outputs["logits"][hidden], batch["labels"][hidden]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step >= 270:
            right += int((outputs["logits"].argmax(-1) == batch["labels"])[hidden].sum())
            total += int(hidden.sum())
    assert right / total > 0.99


def test_trail_follows_any_words():
    words, siblings = ["grid", "column$1"], {"grid": 1.5, "column$1": 3.0}
    vocabulary = Vocabulary(words, pointers=8)
    names = [*vocabulary.words, *(f"@{i}" for i in range(8))]
    kinds = torch.tensor([kind_of(name, i) for i, name in enumerate(names)])
    usual = torch.tensor([siblings.get(name, 1.0) for name in names])
    generator = random.Random(0)
    for levels in (1, 3, 8):
        for _ in range(20):
            row = generator.choices([*words, "{", "}", "@3", "$1"], weights=[4, 4, 3, 3, 2, 1], k=60)
            trail, rows, places = Trail(1, levels, torch.device("cpu")), [], []
            for number in vocabulary.encode(row):
                rows.append(trail.rows()[0].tolist())
                places.append(trail.places()[0].tolist())
                trail.follow(kinds[torch.tensor([[number]])], usual[torch.tensor([[number]])])
            expected_rows, expected_places = trail_of(row, levels, siblings)
            assert rows == expected_rows
            torch.testing.assert_close(torch.tensor(places), torch.tensor(expected_places))


def test_any_words_are_a_layout_that_can_be_written_again():
    generator = random.Random(0)
    for _ in range(200):
        row = generator.choices(["grid", "column", "$1", "$2", "{", "}", "@3", "@7", "<unk>"], k=30)
        layout = delinearise(row)
        again = delinearise(words_of_pointed(layout))
        assert again["children"] == layout["children"]


def test_writing_with_the_cache_equals_writing_without(splits):
    task, model, batch = made(splits, order="left-to-right")
    inputs = {name: value for name, value in taken_of(model, batch).items() if not name.startswith(("labels", "word"))}
    levels, compared = task.size.places // PLACES, 0
    with torch.no_grad():
        memory = read(model, batch)
        written = model.generate(memory, 24)
        allowed = model.allowed(memory)
        for position in range(written.shape[1]):
            asked = torch.cat([written[:, :position], torch.zeros(6, 1, dtype=torch.long)], dim=1)
            words = [task.order.vocabulary.decode(row) for row in written[:, :position].tolist()]
            going = [i for i, row in enumerate(words) if len(row) == position and "<end>" not in row]
            if not going:
                break
            paths, places = torch.full((6, position + 1, levels), -1), torch.full((6, position + 1, ANCESTORS), -1.0)
            for i in going:
                along, shares = trail_of([*words[i], "<pad>"], levels, task.order.siblings)
                paths[i], places[i] = torch.tensor(along), torch.tensor(shares)
            logits = model(asked, paths, places, **inputs)["logits"][:, -1:]
            best = logits.masked_fill(~allowed, float("-inf")).argmax(-1)[:, 0]
            assert torch.equal(best[going], written[going, position])
            compared += len(going)
    assert compared > 24


@pytest.mark.parametrize("options", [{"order": "diffusion", "keys": "flat"}, {"order": "left-to-right"}])
def test_a_fresh_model_that_writes_as_if_trained_writes_layouts_as_large_as_the_right_ones(splits, options):
    task, model, batch = made(splits, **options, **NO_DROP)
    right = [words_of_pointed(layout) for layout in batch["target_trees"]]
    own = task.predict(model, batch, {})["predicted_tokens"]
    with task.as_trained():
        told = task.order.write(model, batch, task.sampling)
        assert [words_of_pointed(layout) for layout in told] == right
        bare = {name: values for name, values in batch.items() if name not in ("labels", "slot_levels")}
        assert len(task.order.write(model, bare, task.sampling)) == len(right)
    assert task.predict(model, batch, {})["predicted_tokens"] == own
