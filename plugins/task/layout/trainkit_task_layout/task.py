"""The task 'layout': a section's layout from its screenshot and its structure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import nn
from trainkit import Technique, hookimpl
from trainkit.contracts import Answer, Batch, Finding, Inspection, Outputs, Sample, Splits
from trainkit.errors import UsageError
from trainkit.live import Run
from trainkit.plan import Plan, Stage

from .answers import answer
from .attention import Looks, picture_of_looks
from .baselines import Baselines
from .batch import pixels, properties, structures
from .dataset import LayoutDataset
from .detect import Format, read_data
from .diffusion import LayoutDiffusion
from .encoder import PageEncoder, Stem
from .experts import only_experts_learn
from .fewshot import SupportUse
from .inputs import read_inputs
from .inspection import inspect
from .linear import elements, name_sources, written
from .looks import picture_of
from .noise import MaskSchedule
from .order_diffusion import NODE_INPUTS, DiffusionOrder
from .order_words import WordOrder
from .powers import Powers
from .presets import PresetName, size_of
from .sampler import Sampling
from .sections import write_sections
from .splits import BadSamples
from .techniques import techniques
from .tree import Node, structure_words, walk
from .vocabulary import Tags

EMBEDDED = "embedded sample: 50 sections"
PREDICTIONS = frozenset(
    {
        "predictions", "predicted_elements", "target_elements", "predicted_layouts", "target_layouts",
        "predicted_tokens", "target_tokens",
    }
)  # fmt: skip
Share = Annotated[float, Field(ge=0, lt=1)]
Guidance = Literal["constant", "ramp"]


class LayoutTask:
    """Learn to write the layout of a page section from its screenshot and, where there is one, its structure.

    Args:
        order: how layouts are decoded: slots of the tree by masked diffusion, or words from left to right.
        preset: size of the model; the sizes below go before it.
        width: features of a position; a multiple of four times the heads.
        heads: attention heads.
        encoder_layers: layers that read.
        decoder_layers: layers that write.
        patch: side of a patch of the picture in pixels.
        stem: how patches become features: a projection, or convolutions, which few samples teach more.
        image_size: side of the square, in pixels, into which screenshots are fitted; a multiple of the patch.
        dropout: share of features dropped in training.
        drop_path: stochastic depth, rising from 0 at the first layer to this at the last.
        feature_noise: standard deviation of noise on the embedded inputs in training.
        keys: whether sources are pointed to (factorised) or a whole key is one class (flat); diffusion only.
        max_length: most slots or words of a layout; longer ones are cut at subtree borders.
        mask_schedule: how the share of hidden slots follows the time.
        condition_dropout: probability that a training sample loses its whole condition; guidance needs it.
        part_dropout: probability that it loses only its picture, or only its structure.
        scales: smaller sides, ascending, at which pictures are also read in training, for multi-scale losses.
        steps: most steps in which generation uncovers the slots of a level.
        guidance: classifier-free guidance of generation; 1 for none.
        guidance_schedule: whether the guidance is constant or rises over the steps.
        temperature: of generation; 0 takes the most likely.
        format: of the data; auto recognises it.
        on_bad_sample: stop at samples that cannot be used, or skip them.
        max_bad_fraction: share of bad samples up to which 'skip' goes on.
        support: most screenshots of like training pages that the decoder also looks at; 0 for none; diffusion only.
        support_use: whether slots attend to them, or their norms are scaled and shifted by them (film).
        experts: copies of the decoder's layers, each for a share of hidden slots; 1 for none; diffusion only. They
            begin to work in a stage in which they alone learn (trainable = ["experts.*"]).
        expert_budget: share of the decoder's layers for the expert of the fewest hidden slots; 1 for all of them.
        visual_backbone: local folder of a pretrained ViT, in the Hugging Face format, in place of the stem.
        text_backbone: local folder of a pretrained BERT that reads tags, classes and annotations of structures.
    """

    sample_keys = frozenset({"id", "image", "structure", "layout", "props", "source"})
    predicts = PREDICTIONS

    def __init__(
        self,
        order: Literal["diffusion", "left-to-right"] = "diffusion",
        preset: PresetName = "tiny",
        width: PositiveInt | None = None,
        heads: PositiveInt | None = None,
        encoder_layers: PositiveInt | None = None,
        decoder_layers: PositiveInt | None = None,
        patch: PositiveInt | None = None,
        stem: Stem = "convolution",
        image_size: PositiveInt = 128,
        dropout: Share = 0.1,
        drop_path: Share = 0.0,
        feature_noise: NonNegativeFloat = 0.0,
        keys: Literal["factorised", "flat"] = "factorised",
        max_length: Annotated[int, Field(ge=8)] = 256,
        mask_schedule: MaskSchedule = "cosine",
        condition_dropout: Share = 0.1,
        part_dropout: Share = 0.0,
        scales: tuple[PositiveInt, ...] = (),
        steps: PositiveInt = 8,
        guidance: NonNegativeFloat = 7.5,
        guidance_schedule: Guidance = "constant",
        temperature: NonNegativeFloat = 0.0,
        format: Format = "auto",
        on_bad_sample: BadSamples = "stop",
        max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01,
        support: NonNegativeInt = 0,
        support_use: SupportUse = "cross-attention",
        experts: PositiveInt = 1,
        expert_budget: Annotated[float, Field(gt=0, le=1)] = 0.6,
        visual_backbone: str | None = None,
        text_backbone: str | None = None,
    ) -> None:
        size = size_of(preset, width, heads, encoder_layers, decoder_layers, patch)
        for side in (image_size, *scales):
            if side % size.patch and visual_backbone is None:
                raise UsageError(f"task.image_size and task.scales: {side} is not a multiple of the patch {size.patch}")
        if list(scales) != sorted(set(scales)) or any(side >= image_size for side in scales):
            raise UsageError(
                f"task.scales = {list(scales)} must ascend and stay below task.image_size = {image_size}",
                why="the picture itself is the largest scale; smaller ones are made of it",
            )
        has_stem = visual_backbone is None or support > 0
        if has_stem and stem == "convolution" and size.patch & (size.patch - 1):
            raise UsageError(f"task.stem = convolution halves the picture: task.patch = {size.patch} is no power of 2")
        if order == "diffusion" and guidance != 1 and not condition_dropout:
            raise UsageError(
                f"task.guidance = {guidance:g} needs a model that is trained without its condition, too",
                why="task.condition_dropout = 0: what the model would say without a page is unknown",
                do="add --set task.guidance=1, or train with --set task.condition_dropout=0.1",
            )
        if order == "left-to-right" and (keys == "flat" or scales or support or experts > 1):
            raise UsageError("task.keys = flat, task.scales, task.support and task.experts belong to order = diffusion")
        self.size, self.stem, self.image_size = size, stem, image_size
        self.regularisers = {"dropout": dropout, "drop_path": drop_path, "feature_noise": feature_noise}
        self.sampling = Sampling(steps, guidance, guidance_schedule == "ramp", temperature)
        self.format, self.on_bad_sample, self.max_bad_fraction = format, on_bad_sample, max_bad_fraction
        folders = {"visual": visual_backbone, "text": text_backbone}
        self.powers = Powers(
            size, stem, dropout, (image_size, *scales), support, support_use, experts, expert_budget, folders
        )
        self.order: Any
        if order == "diffusion":
            noise = {
                "schedule": mask_schedule,
                "condition_dropout": condition_dropout,
                "part_dropout": part_dropout,
                "scales": scales,
            }
            self.order = DiffusionOrder(size, max_length, keys == "flat", dropout, drop_path, noise)
        else:
            self.order = WordOrder(size, max_length, dropout)
        self.tags = Tags(rows=size.structure_words)
        self.has_pictures = self.has_structures = True
        self.has_props = False
        self.baseline = Baselines()

    @property
    def adjustable(self) -> frozenset[str]:
        """Return the options of reading and generation; words are written greedily: left-to-right has none of these."""
        is_diffusion = isinstance(self.order, DiffusionOrder)
        generation = {"steps", "guidance", "guidance_schedule", "temperature"} if is_diffusion else set()
        return frozenset({"on_bad_sample", "max_bad_fraction"} | generation)

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Return the settings that this task proposes."""
        return {
            "loss.use": "masked-diffusion" if isinstance(self.order, DiffusionOrder) else "cross-entropy",
            "metric": ["token-accuracy", "element-f1", "layout-quality", "token-error"],
            "augmenter": ["layout"],
            "callback": ["sample-outputs"],
            # Class 0 is an empty slot: who predicts only those is right nowhere.
            "metric.token-accuracy.pad_id": 0,
            "evaluate.monitor": "val/loss",
        }

    @property
    def techniques(self) -> Mapping[str, Technique]:
        """Return what strategies may ask of this task, as far as options and data allow."""
        return techniques(
            is_diffusion=isinstance(self.order, DiffusionOrder),
            has_pictures=self.has_pictures,
            has_structures=self.has_structures,
            dropout=self.regularisers["dropout"],
            side=self.image_size,
            patch=self.size.patch,
            backbones=list(self.powers.folders),
        )

    @property
    def gives(self) -> frozenset[str]:
        """Return the names in a batch, in outputs and in predictions, as far as the data has them."""
        targets, outputs = self.order.gives(self.has_pictures, self.has_structures)
        inputs = {"layouts", "structures", "target_trees"}
        inputs |= {"pixel_values"} if self.has_pictures else set()
        inputs |= set(NODE_INPUTS) if self.has_structures else set()
        inputs |= {"props"} if self.has_props else set()
        return PREDICTIONS | targets | outputs | inputs | self.powers.inputs

    def read(self, data: Path | None, seed: int) -> Splits:
        """Read and check the data, or write and read the embedded sample; `seed` changes neither.

        Raises:
            DataError: there is nothing to read, or it cannot be used.
        """
        if data is None:
            with TemporaryDirectory(prefix="trainkit-layout-") as folder:
                write_sections(Path(folder))
                return replace(self._read(Path(folder)), source=EMBEDDED)
        return self._read(Path(data))

    def _read(self, data: Path) -> Splits:
        splits = read_data(data, self.image_size, self.on_bad_sample, self.max_bad_fraction, self.format)
        cut = [finding.text for finding in self._cuts(splits)]
        return replace(splits, warnings=(*splits.warnings, *cut))

    def _cuts(self, splits: Splits) -> list[Finding]:
        """Return a remark for each split with layouts that do not fit what training teaches."""
        self.fit(splits.train)
        counts = {
            name: (sum(self.order.is_cut(sample) for sample in part.__getitems__(list(range(len(part))))), len(part))
            for name, part in splits.items()
        }
        return [
            Finding(
                "cut",
                ".",
                f"{cut} of {count} {name} layouts do not fit {self.order.longest_allowed}: cut at subtree borders",
                is_fault=False,
            )
            for name, (cut, count) in counts.items()
            if cut
        ]

    def inspect(self, data: Path) -> Inspection:
        """Look at data and tell all that is wrong with it."""
        return inspect(data, self.image_size, self.format, self._cuts)

    def fit(self, train: Any) -> None:
        """Learn words, shapes of trees and usual answers from the training split."""
        samples: Sequence[Sample] = train.__getitems__(list(range(len(train))))
        trees = [sample["structure"] for sample in samples if sample["structure"] is not None]
        self.tags = Tags(
            {structure_words(part["key"])[0] for tree in trees for part in walk(tree)}, self.size.structure_words
        )
        self.has_pictures = any(sample["image"] is not None for sample in samples)
        self.has_structures = bool(trees)
        self.has_props = any(sample["props"] for sample in samples)
        self._check_capacity()
        self.order.fit(samples)
        self.powers.fit(samples)
        self.baseline = Baselines.learned([self.order.target_tree(sample) for sample in samples])

    def _check_capacity(self) -> None:
        if self.tags.buckets < 1:
            raise UsageError(
                f"the preset has {self.tags.rows} rows for structures, and the data has {len(self.tags.tags)} tags",
                do="take a larger one, as --set task.preset=medium",
            )

    def build_model(self) -> nn.Module:
        """Return a fresh model for what was learned."""
        size = self.size
        encoder = PageEncoder(
            size.width,
            size.heads,
            size.encoder_layers,
            size.patch,
            self.tags.rows,
            self.stem,
            **self.regularisers,
            **self.powers.encoder_parts(),
        )
        model: nn.Module = self.order.build(encoder)
        self.powers.attach(model)
        return model

    def check_plan(self, plan: Plan) -> None:
        """Raise UsageError if experts are wanted and no stage lets them alone learn: they would never work."""
        stages = plan.stages
        if self.powers.experts > 1 and not any(only_experts_learn(stage.trainable) for stage in stages):
            raise UsageError(
                f"task.experts = {self.powers.experts} needs a stage in which the experts alone learn",
                why=f"the strategy '{plan.strategy}' plans none, and experts work only from such a stage on",
                do="leave task.experts out, or give the last of several stages to them: "
                f"""--set 'stages.{stages[-1].name}.trainable=["experts.*"]'""",
            )

    @hookimpl
    def on_stage_start(self, run: Run, stage: Stage) -> None:
        """Let experts begin as the base decoder is, where a stage begins in which they alone learn."""
        if only_experts_learn(stage.trainable):
            for module in run.model.modules():
                if isinstance(module, LayoutDiffusion):
                    module.split_experts()

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return the batch: inputs, targets of the decoding order, and the layouts and structures themselves."""
        batch: dict[str, Any] = {
            "layouts": [sample["layout"] for sample in samples],
            "structures": [sample["structure"] for sample in samples],
            "target_trees": [self.order.target_tree(sample) for sample in samples],
        }
        if all(sample["image"] is not None for sample in samples):
            batch["pixel_values"] = pixels([sample["image"] for sample in samples])
        nodes = 0
        if any(sample["structure"] is not None for sample in samples):
            batch |= structures([sample["structure"] for sample in samples], self.tags)
            nodes = batch["struct_ids"].shape[1]
        if self.has_props:
            batch["props"] = properties(samples)
        return batch | self.powers.rows(samples, nodes) | self.order.targets(samples, nodes)

    @contextlib.contextmanager
    def as_trained(self) -> Iterator[None]:
        """Write layouts as large as the right ones, wherever these are known: that takes as long as a trained model."""
        own, self.sampling = self.sampling, replace(self.sampling, is_told=True)
        try:
            yield
        finally:
            self.sampling = own

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch, outputs: Outputs) -> Mapping[str, Any]:
        """Return the layouts that the model generates by itself.

        `outputs` know a part of the right answer and are therefore not looked at.
        """
        trees = self.order.write(model, batch, self.sampling)
        return self._predicted(trees, batch)

    def _predicted(self, trees: Sequence[Node], batch: Batch) -> dict[str, Any]:
        named = [self._named(tree, page) for tree, page in zip(trees, batch["structures"], strict=True)]
        return {
            "predictions": self.order.aligned(trees, batch),
            "predicted_elements": [elements(tree) for tree in trees],
            "target_elements": [elements(tree) for tree in batch["target_trees"]],
            "predicted_layouts": named,
            "target_layouts": batch["layouts"],
            "predicted_tokens": [written(tree) for tree in named],
            "target_tokens": [written(tree) for tree in batch["layouts"]],
        }

    def _named(self, tree: Node, structure: Node | None) -> Node:
        # Keys that are classes as a whole hold names already.
        return tree if getattr(self.order, "is_flat", False) else name_sources(tree, structure)

    def inputs(self, paths: Sequence[Path]) -> LayoutDataset:
        """Read screenshots and sample folders; structure and layout need not be there."""
        return read_inputs(paths, self.image_size, self.on_bad_sample)

    def answers(self, model: nn.Module, batch: Batch, samples: Sequence[Sample]) -> list[Answer]:
        """Return a layout for each sample."""
        trees = self.order.write(model, batch, self.sampling)
        looks: Sequence[Looks] = self.order.look(model, batch, trees) if "pixel_values" in batch else [[]] * len(trees)
        return [
            answer(
                sample,
                self._named(tree, sample["structure"]),
                self.writes_dsl,
                picture_of_looks(sample["image"], seen) if seen else None,
            )
            for sample, tree, seen in zip(samples, trees, looks, strict=True)
        ]

    @property
    def writes_dsl(self) -> bool:
        """Return whether layouts are those of pix2code: of pictures alone, without places."""
        return not self.has_structures and self.has_pictures and not getattr(self.order, "has_boxes", False)

    def picture(self, sample: Sample) -> Any:
        """Return a sample's screenshot with its boxes drawn in, [H, W, 3] of bytes."""
        return picture_of(sample)

    def baselines(self) -> Mapping[str, Callable[[Batch], Mapping[str, Any]]]:
        """Return the predictors that know nothing of the sample: nothing at all, the usual word, the usual elements."""

        def predictor(make: Callable[[Node], Node]) -> Callable[[Batch], Mapping[str, Any]]:
            return lambda batch: self._predicted([make(tree) for tree in batch["target_trees"]], batch)

        return {name: predictor(make) for name, make in self.baseline.predictors().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as JSON."""
        return {
            "tags": list(self.tags.tags),
            "has_pictures": self.has_pictures,
            "has_structures": self.has_structures,
            "has_props": self.has_props,
            "baseline": self.baseline.state_dict(),
            "order": self.order.state_dict(),
            "powers": self.powers.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.tags = Tags(state["tags"], self.size.structure_words)
        self.has_pictures, self.has_structures = state["has_pictures"], state["has_structures"]
        self.has_props = state["has_props"]
        self.baseline = Baselines(**state["baseline"])
        self.order.load_state_dict(state["order"])
        self.powers.load_state_dict(state["powers"])
