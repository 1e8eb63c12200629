from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from trainkit import UsageError, hookimpl
from trainkit.api import start
from trainkit.contracts import LossOutput
from trainkit.narrowing import Epoch
from trainkit.plan import Selection, Stage
from trainkit.rundir import rows as log_rows
from trainkit.testing import CallbackConformance
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.seen import Seen
from trainkit.testing.tiny import TinyData, TinyTask, tiny_request, tiny_run
from trainkit_callback_data_dropout.data_dropout import DataDropout, effective_epochs, gamma_for, kept_count
from trainkit_callback_data_dropout.judging import above_quantile, rows, true_probability, wrong_somewhere

SAMPLES = TinyData(1000, 1)


class PerSample(nn.Module):
    """A cross-entropy that tells the loss of each sample."""

    def forward(self, logits, labels):
        real = labels >= 0
        each = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
        return LossOutput(each.sum(), real.sum(), per_sample=(each.detach().sum(1) / real.sum(1)))


class TestDataDropout(CallbackConformance):
    component = "data-dropout"

    def used(self):
        callback = DataDropout(method="dbpd", judge="loss")
        run = SimpleNamespace(splits=SimpleNamespace(train=SAMPLES), settings=tiny_run().settings, record=print)
        callback.pending = 3
        callback._count(run)
        callback.losses = [0.5, 0.25]
        return callback


@pytest.mark.parametrize(("gamma", "epochs", "expected"), [(0.95, 30, 16.4813), (0.9, 30, 10.5290)])
def test_effective_epochs_are_those_of_the_closed_form(gamma, epochs, expected):
    assert effective_epochs(gamma, epochs) == pytest.approx((1 - gamma ** (epochs - 1)) / (1 - gamma) + 1)
    assert effective_epochs(gamma, epochs) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("epochs", "gamma"), [(30, 0.982845), (100, 0.995215)])
def test_gamma_for_a_saving_of_a_fifth(epochs, gamma):
    assert gamma_for(0.2, epochs) == pytest.approx(gamma, abs=5e-7)
    assert effective_epochs(gamma_for(0.2, epochs), epochs) == pytest.approx(0.8 * epochs)


def test_a_saving_that_cannot_be_is_refused_and_two_epochs_have_nothing_to_save():
    with pytest.raises(UsageError, match=r"(?s)90% of the samples cannot be left out in 10 epochs.*less than 80%"):
        gamma_for(0.9, 10)
    assert gamma_for(0.2, 2) == 1.0


def test_kept_count():
    assert [kept_count(0.5, epoch, 100) for epoch in (0, 1, 2, 3, 20)] == [100, 50, 25, 12, 1]
    assert kept_count(0.1, 1, 10) == 1


def test_srd_measured_over_thirty_epochs_is_the_closed_form():
    callback, indices, epochs = DataDropout(), np.arange(1000), 30
    kept = [callback.admit(indices, SAMPLES, Epoch(e, epochs - e)) for e in range(epochs)]
    assert [len(part) for part in kept[:-1]] == [int(0.95**e * 1000 + 1e-9) for e in range(29)]
    assert sum(map(len, kept)) / 1000 == pytest.approx(16.4813, abs=0.03)
    assert len(kept[-1]) == 1000
    assert all((np.diff(part) > 0).all() for part in kept)
    assert not np.array_equal(kept[20], kept[21][: len(kept[20])])


def test_a_run_of_srd_is_as_long_as_planned_and_its_schedule_ends_with_it(tmp_path):
    seen = Seen()
    request = tiny_request(
        {"out": str(tmp_path / "run"), "scheduler.warmup": 0.0},
        stages=[Stage(epochs=10)],
        callbacks=[DataDropout(target_saving=0.2), seen],
    )
    start(request)
    sizes = [len(epoch) for epoch in seen.epochs]
    gamma = gamma_for(0.2, 10)
    assert sizes == [kept_count(gamma, e, 24) for e in range(9)] + [24]
    assert sum(sizes) / 24 == pytest.approx(8, abs=9 / 24)
    assert seen.rates[-1] < 0.05 * seen.rates[0]
    facts = json.loads((tmp_path / "run" / "results.json").read_text())
    assert facts["steps"] == sum(-(-size // 4) for size in sizes) == len(seen.rates)
    assert facts["summaries"]["callback live:callback0"] == {
        "samples_back_propagated": sum(sizes),
        "effective_epochs": sum(sizes) / 24,
    }
    recorded = [
        r["data-dropout/effective_epochs"] for r in log_rows(tmp_path / "run" / "metrics.jsonl") if "train/loss" in r
    ]
    assert recorded == sorted(recorded)
    assert recorded[-1] == sum(sizes) / 24


def test_probability_of_sequences_counts_what_is_real_and_hidden():
    logits = torch.log(torch.tensor([[[0.2, 0.8], [0.6, 0.4]], [[0.5, 0.5], [0.9, 0.1]]]))
    labels = torch.tensor([[1, 0], [0, -100]])
    assert true_probability(logits, labels).tolist() == pytest.approx([0.7, 0.5])
    hidden = torch.tensor([[True, False], [False, True]])
    assert true_probability(logits, labels, hidden).tolist() == pytest.approx([0.8, 1.0])
    assert true_probability(logits[:, 0], labels[:, 0]).tolist() == pytest.approx([0.8, 0.5])
    assert wrong_somewhere(logits, torch.tensor([[1, 1], [0, -100]])).tolist() == [True, False]


def test_quantile_of_losses_runs_over_what_is_remembered():
    unknown, remembered = above_quantile(torch.tensor([1.0, 5.0]), [2.0, 3.0, 4.0], 0.5)
    assert unknown.tolist() == [False, True]
    assert remembered == [2.0, 3.0, 4.0, 1.0, 5.0]
    assert len(above_quantile(torch.rand(1000), [0.0] * 1000, 0.3)[1]) == 1024


def test_rows_of_a_batch():
    batch = {"a": torch.arange(6).view(3, 2), "names": ("x", "y"), "sample_id": torch.tensor([7, 8, 9])}
    part = rows(batch, torch.tensor([0, 2]))
    assert part["a"].tolist() == [[0, 1], [4, 5]]
    assert (part["names"], part["sample_id"].tolist()) == (("x", "y"), [7, 9])


def asked(run, callback):
    """Return a batch, its loss, the model's outputs, and what the callback answers."""
    batch = run.batch_maker()(0, torch.arange(8), torch.zeros(8, dtype=torch.long))
    run.model.eval()
    outputs, loss = run.forward(batch)
    return batch, loss, outputs, callback.on_loss(run, batch, loss, outputs)


def test_dbpd_keeps_what_is_unknown_with_its_own_divisor():
    run = tiny_run({"loop.batch_size": 8})
    batch, _, outputs, _ = asked(run, DataDropout(revision=0))
    probabilities = true_probability(outputs["logits"].detach(), batch["labels"])
    tau = float(probabilities.median()) + 1e-6
    callback = DataDropout(method="dbpd", tau=tau, revision=0)
    _, _, _, answer = asked(run, callback)
    keep = (probabilities < tau).nonzero().flatten()
    assert 0 < len(keep) < 8
    expected = run.forward(rows(batch, keep))[1]
    assert torch.equal(answer.sum, expected.sum)
    assert answer.count == expected.count == (batch["labels"][keep] >= 0).sum()
    assert answer.sum.requires_grad
    assert callback.pending == len(keep)


def test_smrd_keeps_as_many_at_random_and_the_same_ones_again():
    run = tiny_run({"loop.batch_size": 8})
    tau = 1 / 13
    dbpd, one, other = (DataDropout(method=m, tau=tau, revision=0) for m in ("dbpd", "smrd", "smrd"))
    answers = [asked(run, callback)[3] for callback in (dbpd, one, other)]
    assert 0 < dbpd.pending == one.pending == other.pending
    assert torch.equal(answers[1].sum, answers[2].sum)
    run.moment.samples = 8
    assert not torch.equal(asked(run, other)[3].sum, answers[1].sum)


def test_in_the_last_epochs_and_where_all_is_unknown_batches_stay_whole():
    run = tiny_run({"loop.batch_size": 8})
    run.moment.stage_started, run.moment.epoch = True, 1
    callback = DataDropout(method="dbpd", tau=0.0001)
    assert asked(run, callback)[3] is None
    assert callback.pending == 8
    assert asked(tiny_run(), DataDropout(method="dbpd", tau=0.99))[3] is None


def test_an_empty_batch_is_passed_over_and_after_an_epoch_of_them_all_samples_are_taken(tmp_path):
    seen, callback = Seen(), DataDropout(method="dbpd", tau=1e-9)
    request = tiny_request({"out": str(tmp_path / "run")}, stages=[Stage(epochs=4)], callbacks=[callback, seen])
    result = start(request)
    # Epochs 1 and 3 know everything, so 2 and 4, which is the last, take all.
    assert len(seen.rates) == result.summary["steps"] == 12
    assert callback.back_propagated == 48
    assert result.summary["epochs"] == 4


def test_a_stage_of_steps_ends_however_much_is_known(tmp_path):
    request = tiny_request(
        {"out": str(tmp_path / "run")}, stages=[Stage(steps=9)], callbacks=[DataDropout(method="dbpd", tau=1e-9)]
    )
    assert start(request).summary["steps"] == 9


def test_without_labels_the_loss_decides_and_a_loss_that_cannot_tell_is_an_error(tmp_path):
    run = tiny_run({"loop.batch_size": 8}, loss=PerSample())
    callback = DataDropout(method="dbpd", judge="loss", tau=0.5, revision=0)
    asked(run, callback)
    assert callback.pending == 4
    assert len(callback.losses) == 8
    run = tiny_run()
    batch = run.batch_maker()(0, torch.arange(4), None)
    loss = LossOutput(torch.ones((), requires_grad=True), 1)
    with pytest.raises(UsageError, match="does not tell that of each sample"):
        DataDropout(method="dbpd", judge="loss", revision=0).on_loss(run, batch, loss, {})
    with pytest.raises(UsageError, match="no whole-numbered labels"):
        DataDropout(method="dbpd", judge="probability", revision=0).on_loss(run, {"sample_id": [1]}, loss, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"gamma": 0.9, "target_saving": 0.2}, "not to both"), ({"method": "dbpd", "gamma": 0.9}, "neither gamma nor")],
)
def test_options_that_contradict(options, message):
    with pytest.raises(UsageError, match=message):
        DataDropout(**options)


def test_a_run_that_is_too_short_says_so(caplog, tmp_path):
    start(tiny_request({"out": str(tmp_path / "run")}, callbacks=[DataDropout(target_saving=0.2)]))
    assert "2 epochs are too few, no sample is dropped" in caplog.text


def test_it_drops_from_what_others_select_whatever_the_order(tmp_path):
    class Even:
        @hookimpl
        def select_samples(self, indices):
            return [index for index in indices if index % 2 == 0]

    drawn = []
    for order in (1, -1):
        seen = Seen()
        callbacks = [DataDropout(gamma=0.5), Even()][::order]
        stages = [Stage(epochs=3, selection=Selection(easiest=0.5))]
        start(tiny_request({"out": str(tmp_path / str(order))}, stages=stages, callbacks=[*callbacks, seen]))
        drawn.append([sorted(epoch) for epoch in seen.epochs])
        assert all(index % 2 == 0 for epoch in drawn[-1] for index in epoch)
    assert drawn[0] == drawn[1]
    assert len(drawn[0][1]) == len(drawn[0][0]) // 2


@pytest.mark.parametrize("options", [{"gamma": 0.7}, {"method": "dbpd", "tau": 0.1}, {"method": "smrd", "tau": 0.1}])
def test_two_and_three_epochs_are_five(options, tmp_path):
    settings = {"optimizer.lr": 0.02, "loop.accumulate": 2, "loop.log_every_steps": 2}
    straight = assert_resumes(tmp_path, lambda: [DataDropout(**options)], [4, 7], settings, task=TinyTask(samples=22))
    facts = json.loads((straight / "results.json").read_text())["summaries"]["callback live:callback0"]
    assert 0 < facts["samples_back_propagated"] < 5 * 22


@pytest.mark.parametrize("is_staged", [True, False])
def test_hard_samples_are_not_looked_for_among_easy_ones(is_staged):
    stage = Stage(name="easy", epochs=2, selection=Selection(easiest=0.5)) if is_staged else Stage(epochs=2)
    callbacks = ["data-dropout"] if is_staged else ["curriculum", "data-dropout"]
    settings = {"callback": callbacks, "callback.data-dropout.method": "dbpd"}
    whose = "stage easy of the plan" if is_staged else "callback curriculum"
    with pytest.raises(UsageError, match=f"(?s)dbpd keeps the hard samples, and {whose}.*method=srd"):
        tiny_run(settings, stages=(stage,))
    run = tiny_run(settings | {"callback.data-dropout.method": "srd"}, stages=(stage,))
    assert "callback data-dropout" in run.components
