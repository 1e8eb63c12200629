"""`trainkit ablate`: which runs it has, how they are paired, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn
from trainkit import LossOutput, UsageError, hookimpl, resume
from trainkit.ablation.ablation import start
from trainkit.ablation.contribution import contribution, main_tags, matrix, sentence
from trainkit.ablation.plan import Asked, plan_ablation
from trainkit.ablation.removals import chosen, removals_of
from trainkit.ablation.report import read_figures
from trainkit.api import ExitCode, Request
from trainkit.api import start as start_run
from trainkit.config import NULLS
from trainkit.draft import make_draft
from trainkit.errors import CheckpointError
from trainkit.folds.figures import spread
from trainkit.plan import Selection, Stage
from trainkit.rundir import RunDirectory
from trainkit.testing import tiny
from trainkit.testing.tiny import TinyTask, tiny_request

STAGES = (
    Stage(name="easy", epochs=1, selection=Selection(easiest=0.5)),
    Stage(name="all", epochs=1, lr_factor=0.5),
)
TASK = ("--task", f"{tiny.__file__}:TinyTask", "--strategy", "baseline", "--epochs", "2", "--set", "task.samples=12")


class Twice(nn.Module):
    """Twice the cross-entropy: all that is compared is the same, but the loss."""

    def forward(self, logits, labels):
        kept = labels.flatten() != -100
        total = nn.functional.cross_entropy(logits.flatten(0, 1)[kept], labels.flatten()[kept], reduction="sum")
        return LossOutput(2 * total, int(kept.sum()))


class Shift:
    """Shift a sample's tokens by one."""

    reads = frozenset({"tokens"})

    def __call__(self, sample, generator):
        return sample | {"tokens": (sample["tokens"] + 1) % tiny.VOCABULARY}


class Halve:
    """Halve every gradient."""

    @hookimpl
    def on_gradients(self, run):
        for weight in run.learnable.values():
            if weight.grad is not None:
                weight.grad.mul_(0.5)


class Watch:
    """Look at every step."""

    only_observes = True

    def __init__(self):
        self.steps = 0

    @hookimpl
    def on_step(self, run):
        self.steps += 1


class Accuracy:
    """The share of right labels."""

    higher_is_better = True

    def __init__(self):
        self.reset()

    def update(self, predictions, labels):
        kept = labels != -100
        self.right += int((predictions == labels)[kept].sum())
        self.seen += int(kept.sum())

    def compute(self):
        return self.right / self.seen

    def reset(self):
        self.right = self.seen = 0


def full_request(out, **more):
    settings = {"out": str(out), "loop.variants": 2, "scheduler.use": "cosine", "optimizer.use": "sgd"}
    live = {"loss": Twice(), "augmenter": [Shift()], "metric": [Accuracy()]} | more
    return request_of(settings, **live)


def request_of(settings, augmenter=(), metric=(), callbacks=(), **live):
    request = tiny_request(
        settings
        | {"augmenter": [f"live:augmenter{n}" for n in range(len(augmenter))]}
        | {"metric": [f"live:metric{n}" for n in range(len(metric))]},
        stages=STAGES,
        task=TinyTask(samples=12),
        callbacks=callbacks or (Halve(), Watch()),
        **live,
    )
    objects = dict(request.live)
    objects |= {f"live:augmenter{n}": each for n, each in enumerate(augmenter)}
    objects |= {f"live:metric{n}": each for n, each in enumerate(metric)}
    return Request(request.layers, objects, request.registry, report=request.report)


def without_layers(request, listeners=()):
    return Request((), request.live, request.registry, listeners, report=request.report)


@pytest.fixture(scope="module")
def ablated(tmp_path_factory):
    """A run with something of every kind, its plan of ablation, and what that came to."""
    folder = tmp_path_factory.mktemp("ablation")
    request = full_request(folder / "run")
    start_run(request)
    request = without_layers(request)
    plan = plan_ablation(folder / "run", Asked(seeds=2), request)
    return plan, start(plan, request), request


def test_each_run_lacks_one_part_and_has_all_others(ablated):
    plan, _, _ = ablated
    expected = {
        "loss": NULLS["loss"],
        "optimizer": NULLS["optimizer"],
        "scheduler": NULLS["scheduler"],
        "augmenter/augmenter0": "nothing",
        "callback/callback0": "nothing",
        "stages": "one stage",
    }
    assert {each.label: each.null for each in plan.removals} == expected
    assert set(plan.kept) == {"task", "adapter", "callback/callback1", "metric/metric0"}
    full = plan.draft.config
    for each in plan.removals:
        kind = each.label.partition("/")[0]
        differ = {key.partition(".")[0] for key in {*full, *each.config} if full.get(key) != each.config.get(key)}
        assert differ == {kind}
        assert (each.plan == plan.draft.plan) == (kind != "stages")
    (stage,) = next(each.plan.stages for each in plan.removals if each.label == "stages")
    assert stage == Stage(steps=plan.draft.total_steps)
    assert next(e.config.listed("callback") for e in plan.removals if e.component == "callback0") == ["live:callback1"]


def test_runs_are_complete_and_paired_by_seed(ablated):
    plan, result, _ = ablated
    assert result.exit_code is ExitCode.DONE
    assert plan.seeds == [0, 1]
    assert [run.label for run in plan.runs[:7]] == ["full", *(each.label for each in plan.removals)]
    rows = {(row["part"], row["seed"]): row for row in result.document["runs"]}
    assert len(rows) == len(plan.runs) == 14
    for row in rows.values():
        there = RunDirectory.read(result.directory / row["directory"])
        assert there.read_json("status.json")["state"] == "done"
        assert there.read_json("resolved.json")["seed"][-1]["value"] == row["seed"]
        assert row["results"]["val/loss"] == pytest.approx(
            there.read_json("results.json")["results"]["model"]["val/loss"]
        )
    full, found = read_figures(result.document)
    tags = ["val/loss", "test/loss", "val/metric0", "test/metric0"]
    assert list(full) == tags
    by = {(each.label, each.tag): each for each in found}
    assert {tag for label, tag in by if label == "loss"} == set(tags[2:])
    for (label, tag), each in by.items():
        pairs = [rows["full", seed]["results"][tag] - rows[label, seed]["results"][tag] for seed in (0, 1)]
        assert each.difference == spread(pairs)
    assert by["callback/callback0", "val/loss"].difference.mean != 0
    again = resume(result.directory / "full/seed-0", without_layers(ablated[2]))
    first = RunDirectory.read(plan.source).read_json("results.json")
    assert again.summary["results"] == first["results"], "the full run of the first seed is the run that was ablated"


def test_what_is_written_for_people_tells_figures_and_reasons(ablated):
    plan, result, _ = ablated
    card, page = ((result.directory / name).read_text() for name in ("README.md", "report.html"))
    head, rows = matrix(*read_figures(result.document), "val", result.document["directions"])
    assert head == ["", "loss ↓", "metric0 ↑"]
    figure = rows[0][1]
    for text in (card, page):
        assert figure in text
        assert "it observes, and changes nothing" in text
        assert "another one measures in another way" in text
    assert "About one interval in twenty" in card
    assert "<script" not in page
    status = RunDirectory.read(result.directory).read_json("status.json")
    assert (status["state"], status["step"]) == ("done", sum(run.steps for run in plan.runs))


def test_what_is_done_is_not_done_again_and_seeds_can_be_added(ablated, tmp_path):
    plan, result, request = ablated
    started = []

    class Started:
        @hookimpl
        def on_run_start(self, run):
            started.append((run.part_of.name, run.part_of.number, run.part_of.total_steps))

    listening = without_layers(request, [("started", Started())])
    same = start(plan, listening)
    assert started == []
    assert same.document == result.document
    more = plan_ablation(plan.source, Asked(("scheduler",), seeds=3), listening)
    start(more, listening)
    total = sum(run.steps for run in more.runs)
    assert started == [("full run, seed 2", 4, total), ("without scheduler, seed 2", 5, total)]


def test_it_goes_on_after_a_stop_to_the_same_figures(ablated, tmp_path):
    plan, result, request = ablated
    told = []

    class Stop:
        @hookimpl
        def on_step(self, run):
            if run.moment.step == 1:
                told.append(run.part_of.resume)
            if run.part_of.name == "without loss, seed 0" and run.moment.step == 3:
                run.signal = signal.SIGUSR1

    stopped = start(plan, without_layers(request, [("stop", Stop())]), tmp_path / "out")
    assert told == [f"trainkit ablate --seeds 2 --out {tmp_path / 'out'}"] * 2
    assert stopped.exit_code is ExitCode.STOPPED
    assert [row["part"] for row in stopped.document["runs"]] == ["full"]
    assert "13 of 14 runs are not done yet" in (stopped.directory / "README.md").read_text()
    again = tmp_path / "again"
    RunDirectory.create(again, "again").close()
    with pytest.raises(UsageError, match="not empty"):
        start(plan, request, plan.source)
    done = start(replace(plan, runs=plan.runs[:1]), request, again)
    assert [row["part"] for row in done.document["runs"]] == ["full"], "a folder that a kill left empty is taken"
    done = start(plan, request, tmp_path / "out")
    assert done.document["contributions"] == result.document["contributions"]


def test_a_run_that_fails_without_a_part_is_a_row_with_its_reason(tmp_path):
    class Needed(Halve):
        @hookimpl
        def on_run_start(self, run):
            run.config.needed = True

    class Fails(TinyTask):
        @hookimpl
        def on_step(self, run):
            if not hasattr(run.config, "needed"):
                raise RuntimeError("it is gone")

    request = tiny_request({"out": str(tmp_path / "run")}, task=Fails(samples=12), callbacks=[Needed()])
    start_run(request)
    reports = []
    request = Request((), request.live, request.registry, report=reports.append)
    plan = plan_ablation(tmp_path / "run", Asked(["callback"], seeds=1), request)
    for said in ("failed:", "failed before:"):
        result = start(plan, request)
        assert result.exit_code is ExitCode.DONE
        (row,) = (row for row in result.document["runs"] if row["part"] != "full")
        assert (row["status"], "it is gone" in row["reason"]) == ("failed", True)
        assert said in reports[-1]
    assert "it is gone" in (result.directory / "README.md").read_text()
    _, found = read_figures(result.document)
    assert math.isnan(found[0].difference.mean)


def test_a_part_that_the_run_needs_stays(tmp_path):
    class Needs(Halve):
        def check_run(self, run):
            if not any(isinstance(part, Watch) for part in run.components.values()):
                raise UsageError("there is nobody to watch")

    class Seen(Watch):
        only_observes = False

    request = tiny_request({"out": str(tmp_path / "run")}, callbacks=[Needs(), Seen()])
    start_run(request)
    request = without_layers(request)
    plan = plan_ablation(tmp_path / "run", Asked(), request)
    assert plan.kept["callback/callback1"] == "the run does not go without it: there is nobody to watch"
    assert "callback/callback0" in [each.label for each in plan.removals]
    with pytest.raises(UsageError, match=r"does not go without callback/callback1(.|\n)*nobody to watch"):
        plan_ablation(tmp_path / "run", Asked(["callback/callback1"]), request)


def test_nulls_are_what_task_and_strategy_propose_where_there_is_no_neutral_choice():
    class Renamed(TinyTask):
        gives = frozenset({"tokens", "truth", "logits", "predictions"})
        defaults = TinyTask.defaults | {"loss.use": "live:plain", "loss.factor": 3.0}

        def collate(self, samples):
            batch = super().collate(samples)
            return {"tokens": batch["tokens"], "truth": batch["labels"]}

    class Plain(nn.Module):
        def __init__(self, factor: float = 1.0):
            super().__init__()

        def forward(self, logits, truth):
            return LossOutput(logits.sum(), truth.numel())

    class Own(Plain):
        pass

    request = tiny_request({"loss.use": "live:own", "optimizer.use": "sgd"}, task=Renamed())
    live = {
        **request.live,
        "live:plain": Plain,
        "live:own": Own,
        "live:strategy": tiny.TinyStrategy(STAGES, {"optimizer.lr": 0.25}),
    }
    draft = make_draft(request.layers, request.registry, live)
    found = {each.label: each for each in removals_of(draft, live)[0]}
    assert (found["loss"].null, found["loss"].config["loss.factor"]) == ("live:plain", 3.0)
    assert (found["optimizer"].config["optimizer.use"], found["optimizer"].config["optimizer.lr"]) == ("adamw", 0.25)
    assert "optimizer.lr" not in draft.config


def test_what_is_refused(ablated, tmp_path):
    plan, result, request = ablated
    with pytest.raises(CheckpointError, match="not a run directory"):
        plan_ablation(tmp_path / "none", Asked(), request)
    with pytest.raises(UsageError, match="no part named 'sheduler'; did you mean 'scheduler'"):
        plan_ablation(plan.source, Asked(["sheduler"]), request)
    with pytest.raises(UsageError, match=r"task cannot be ablated(.|\n)*it says what is learned"):
        plan_ablation(plan.source, Asked(["task"]), request)
    with pytest.raises(UsageError, match=r"nothing to ablate(.|\n)*it says what is learned"):
        chosen([], {"task": "it says what is learned"}, [])
    shorter = plan_ablation(plan.source, Asked(max_steps=1, seeds=1), request)
    assert {run.steps for run in shorter.runs} == {1}
    with pytest.raises(UsageError, match=r"other settings(.|\n)*loop.max_steps"):
        start(shorter, request, result.directory)
    old = tmp_path / "old"
    shutil.copytree(plan.source, old)
    resolved = json.loads((old / "resolved.json").read_text())
    (old / "resolved.json").write_text(
        json.dumps(resolved | {"loop.gone": [{"value": 1, "origin": "default", "reason": ""}]})
    )
    with pytest.raises(UsageError, match=r"loop\.gone"):
        plan_ablation(old, Asked(), request)
    (old / "resolved.json").write_text(json.dumps({"data": []}))
    with pytest.raises(CheckpointError, match="damaged"):
        plan_ablation(old, Asked(), request)


def test_a_component_of_another_version_is_told(ablated, tmp_path):
    plan, _, request = ablated
    old = tmp_path / "old"
    shutil.copytree(plan.source, old)
    components = json.loads((old / "components.json").read_text())
    for each in components:
        each["version"] = "0.0.1" if each["kind"] == "scheduler" else each["version"]
    (old / "components.json").write_text(json.dumps(components))
    reports = []
    plan_ablation(old, Asked(), Request((), request.live, request.registry, report=reports.append))
    assert ["scheduler cosine is" in line and "started with 0.0.1" in line for line in reports] == [True]


def test_a_verdict_needs_an_interval_without_zero():
    full = {seed: {"test/a": 1.0 + seed / 10} for seed in range(3)}

    def against(*values, direction="max"):
        return contribution("x", "test/a", full, {n: {"test/a": v} for n, v in enumerate(values)}, direction)

    clear = against(0.5, 0.61, 0.7)
    assert clear.difference.values == pytest.approx((0.5, 0.49, 0.5))
    assert clear.verdict == "better with it"
    assert against(0.5, 0.61, 0.7, direction="min").verdict == "worse with it"
    assert against(0.5, 0.61, 0.7, direction="").verdict == "higher with it"
    assert sentence(clear).startswith(
        "x: test/a is better with it, by 0.4967 (full minus without: +0.4967, 95 % interval"
    )
    for unclear in (against(0.5, 1.6, 0.9), against(0.5), against(1.0, 1.1, 1.2), against(math.nan, 0.6, math.nan)):
        assert unclear.verdict == ""
        assert sentence(unclear) == ""


def test_figures_of_a_metric_stand_for_one_that_has_no_own():
    rows = [{"val/loss": 1.0, "val/loss/cpu": 1.0, "test/a": 1.0, "test/a/b": 1.0, "test/c/d": 1.0, "train/loss": 1.0}]
    assert main_tags(rows, "val/loss") == ["val/loss", "test/a", "test/c/d"]
    assert main_tags(rows, "val/a") == ["test/a", "val/loss", "test/c/d"]


def test_the_command_plans_runs_and_tells(cli):
    assert cli("run", *TASK, "--out", "run", "-q").code == 0
    planned = cli("ablate", "run", "--plan", "--seeds", 2)
    assert planned.code == 0, planned.err
    assert ["scheduler", "cosine", "constant", "2"] in [line.split() for line in planned.out.splitlines()]
    assert "stays: callback/tensorboard: it observes, and changes nothing" in planned.out
    assert "warning: an interval over two seeds" in planned.out
    assert "4 runs, seeds 0, 1: about 0:00:" in planned.out
    assert not Path("run-ablation").exists()
    done = cli("ablate", "run", "--seeds", 2)
    assert done.code == 0, done.err
    assert "without scheduler, seed 1: done" in done.err
    assert "± " in done.out
    assert Path("run-ablation/scheduler/seed-1/report.html").exists()
    document = json.loads(cli("ablate", "run", "--seeds", 2, "--json", "-q").out)
    assert document["contributions"] == json.loads(Path("run-ablation/ablation.json").read_text())["contributions"]
    again = cli("run", "run-ablation/scheduler/seed-1/config.toml", "--out", "again", "-q")
    assert again.code == 0, again.err
    for file in ("plan.json", "results.json"):
        first, second = (
            json.loads(Path(folder, file).read_text()) for folder in ("run-ablation/scheduler/seed-1", "again")
        )
        assert first.get("results") == second.get("results")
    refused = cli("ablate", "nowhere")
    assert (refused.code, "this is not a run directory" in refused.err) == (6, True)
