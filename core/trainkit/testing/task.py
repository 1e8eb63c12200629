"""Checks of tasks: what they promise is what comes, samples keep apart, and a handful can be learned by heart."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainkit.binding import bind_forward, bind_loss
from trainkit.config import default_layer, layer_of, merged
from trainkit.contracts import SAMPLE_ID, Splits
from trainkit.kinds import ONE_KINDS
from trainkit.live import as_loss, as_mapping
from trainkit.parts import Loader
from trainkit.registry import Registry
from trainkit.settings import check_settings

from .component import ComponentConformance, plain, same
from .taskpowers import TaskPowers

HANDFUL = 4


class TaskConformance(TaskPowers, ComponentConformance):
    """Check a task on its embedded sample, and its optional powers on data that `written` gives.

    Attributes:
        overfit_steps: steps in which a handful of samples is learned by heart, to half of the first loss.
        overfit_lr: AdamW's learning rate for that.
    """

    kind = "task"
    overfit_steps: ClassVar[int] = 30
    overfit_lr: ClassVar[float] = 3e-3

    def batch(self, task: Any, splits: Splits, count: int = HANDFUL) -> dict[str, Any]:
        """Return a batch of the first training samples."""
        indices = list(range(min(count, len(splits.train))))
        items = splits.train.__getitems__(indices)
        batch = items if isinstance(items, Mapping) else task.collate(items)
        return {**batch, SAMPLE_ID: torch.tensor(indices)}

    def loss(self, task: Any) -> nn.Module:
        """Return the loss that the task trains with by default."""
        config = merged([default_layer(), layer_of(task.defaults, "task")])
        loss: nn.Module = Loader(Registry(), {}).part("loss", config).build()
        return loss

    def outputs(self, task: Any, model: nn.Module, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the model's outputs for a batch."""
        return as_mapping(bind_forward(task, model)(batch))

    def mean_loss(self, task: Any, model: nn.Module, batch: Mapping[str, Any], loss: nn.Module) -> Tensor:
        """Return the mean loss of a batch."""
        values = {**batch, **self.outputs(task, model, batch)}
        output = as_loss(bind_loss(loss).given(values)(values), batch)
        return output.sum / output.count

    def test_declares_itself(self) -> None:
        """gives, predicts and sample_keys are sets of names, and what it predicts it gives."""
        task = self.build()
        assert all(isinstance(names, frozenset) for names in (task.gives, task.predicts, task.sample_keys))
        assert task.predicts <= task.gives

    def test_reads_its_embedded_sample(self) -> None:
        """Without data it reads training, validation and test samples, the same each time."""
        _, splits = self.read()
        assert [name for name, _ in splits.items()] == ["train", "val", "test"]
        assert all(len(dataset) > 0 for _, dataset in splits.items())
        assert splits.source
        assert splits.fingerprint == self.read()[1].fingerprint != ""

    def test_gives_what_it_promises(self) -> None:
        """The names in batch, outputs and predictions together are exactly `gives`."""
        task, splits = self.read()
        batch, model = self.batch(task, splits), self.model(task).eval()
        with torch.no_grad():
            outputs = self.outputs(task, model, batch)
            predictions = task.predict(model, batch, outputs)
        assert set(predictions) == task.predicts
        found = (set(batch) - {SAMPLE_ID}) | set(outputs) | set(predictions)
        assert found == task.gives, f"not given: {task.gives - found}; not promised: {found - task.gives}"

    def test_samples_have_the_promised_keys(self) -> None:
        """A sample has every name of sample_keys, which augmenters rely on."""
        task, splits = self.read()
        items = splits.train.__getitems__([0])
        sample = items if isinstance(items, Mapping) else items[0]
        assert task.sample_keys <= set(sample), f"not in a sample: {task.sample_keys - set(sample)}"

    def test_batches_have_samples_along_dimension_0(self) -> None:
        """Every tensor of a batch has one row for each sample."""
        task, splits = self.read()
        for count in (1, HANDFUL):
            batch = self.batch(task, splits, count)
            rows = {name: len(value) for name, value in batch.items() if isinstance(value, Tensor)}
            assert set(rows.values()) == {count}, rows

    def test_company_does_not_matter(self) -> None:
        """In evaluation a sample has the same loss alone as among others: padding is not looked at."""
        task, splits = self.read()
        model, loss = self.model(task).eval(), self.loss(task).eval()
        with torch.no_grad():
            together = self.batch(task, splits)
            values = {**together, **self.outputs(task, model, together)}
            per_sample = as_loss(bind_loss(loss).given(values)(values), together).per_sample
            assert per_sample is not None, "the default loss does not tell losses of samples"
            for index in range(HANDFUL):
                items = splits.train.__getitems__([index])
                alone = dict(items if isinstance(items, Mapping) else task.collate(items))
                alone[SAMPLE_ID] = torch.tensor([index])
                assert torch.allclose(self.mean_loss(task, model, alone, loss), per_sample[index], atol=1e-4)

    def test_state_continues(self) -> None:
        """Its state is JSON; a fresh task with that state makes the same batches and the same model."""
        task, splits = self.read()
        state = json.loads(json.dumps(task.state_dict()))
        assert plain(state)
        again = self.build()
        again.read(None, 0)
        again.load_state_dict(copy.deepcopy(state))
        assert same(dict(self.batch(task, splits)), dict(self.batch(again, splits)))
        assert same(dict(self.model(task).state_dict()), dict(self.model(again).state_dict()))

    def test_model_takes_no_memory_on_the_meta_device(self) -> None:
        """The model can be made without weights, so that its parameters are counted before it is built."""
        task, _ = self.read()
        with torch.device("meta"):
            model = task.build_model()
        assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in self.model(task).parameters())

    def test_learns_a_handful_by_heart(self) -> None:
        """A few steps on a few samples halve the loss: gradients reach what matters."""
        task, splits = self.read()
        model, loss, batch = self.model(task), self.loss(task), self.batch(task, splits)
        learned = [*model.parameters(), *loss.parameters()]
        optimizer = torch.optim.AdamW(learned, lr=self.overfit_lr, weight_decay=0.0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            first = float(self.mean_loss(task, model, batch, loss).detach())
            for _ in range(self.overfit_steps):
                optimizer.zero_grad()
                self.mean_loss(task, model, batch, loss).backward()
                optimizer.step()
            last = float(self.mean_loss(task, model, batch, loss).detach())
        assert last < first / 2, f"from {first:.3f} to {last:.3f} in {self.overfit_steps} steps"

    def test_evaluation_repeats_itself(self) -> None:
        """In evaluation mode the model and its predictions repeat themselves under the same seed."""
        task, splits = self.read()
        batch, model = self.batch(task, splits), self.model(task).eval()
        answers = []
        for _ in range(2):
            with torch.random.fork_rng(), torch.no_grad():
                torch.manual_seed(0)
                outputs = self.outputs(task, model, batch)
                answers.append([dict(outputs), dict(task.predict(model, batch, outputs))])
        assert same(answers[0], answers[1])

    def test_has_trivial_baselines(self) -> None:
        """Its baselines give what predictions have, so that metrics stand beside those of the trivial."""
        task, splits = self.read()
        baselines = task.baselines()
        assert baselines, "without a trivial baseline no metric means anything"
        batch = self.batch(task, splits)
        for name, predict in baselines.items():
            answer = predict(batch)
            assert answer, name
            assert set(answer) <= task.gives, name

    def test_techniques_can_be_taken(self) -> None:
        """Each technique either says why the task lacks it or names settings that exist, its strength one of them."""
        task, _ = self.read()
        loader = Loader(Registry(), {self.component: self.load().target})
        for name, technique in getattr(task, "techniques", {}).items():
            assert bool(technique.settings) != bool(technique.lacking), f"{name}: either settings or what is lacking"
            assert technique.strength in ("", *technique.settings), f"{name}: the strength is none of its settings"
            config = merged([default_layer(), layer_of({"task.use": self.component, **technique.settings}, name)])
            check_settings(config)
            for kind in {key.partition(".")[0] for key in technique.settings} & set(ONE_KINDS):
                loader.part(kind, config)

    def test_defaults_exist(self) -> None:
        """The components that the task proposes are installed, and take the options that it proposes."""
        loader = Loader(Registry(), {})
        config = merged([default_layer(), layer_of(self.build().defaults, "task")])
        for kind in ("loss", "optimizer", "scheduler", "adapter"):
            loader.part(kind, config)
        for kind in ("metric", "augmenter", "callback"):
            loader.listed(kind, config)
