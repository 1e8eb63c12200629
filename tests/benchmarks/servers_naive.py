"""The naive way to the job of `bench_servers.py`: a pytorch-forecasting model for each metric, one after the other.

Each has its own data set, DataLoader, training under Lightning, validation and test. It has what its documentation
recommends: its own choice of a normaliser, which here is each window's own level and spread, the relative time index,
the scale of the target and the length of the past; and what trainkit's model sees, too: the other metrics, the server,
and the hour and the weekday on a circle. The rows are brought to the grid by hand: windows across a gap of a day, and
times that are a second late, are refused otherwise.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from servers_job import (
    BATCH,
    CLIP,
    COLUMNS,
    CONTEXT,
    DROPOUT,
    HEADS,
    HIDDEN,
    HORIZON,
    LEVELS,
    STEP,
    TEST,
    TIME,
    VAL,
    Job,
    files,
    metric,
    second,
    sums_of,
)

if TYPE_CHECKING:
    import pandas

LONGEST_GAP = 12
DAY, WEEK = 86_400, 7
# Not "cpu": pytorch-forecasting names modules after columns, and a module has a method of that name.
NAMES = ("cpu_percent", "memory_percent", "disk_rate", "network_rate")
CALENDAR = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")


def read(data: str) -> pandas.DataFrame:
    """Return all servers on the grid: short gaps filled forward and marked, a segment ends at a long one."""
    import numpy
    import pandas

    frames = []
    for path in files(data):
        raw = pandas.read_csv(path, sep=r";\s*", engine="python")
        place = (raw[TIME] + STEP // 2) // STEP
        metrics = {
            name: metric(target, *(raw[column] for column in columns))
            for name, (target, columns) in zip(NAMES, COLUMNS.items(), strict=True)
        }
        table = pandas.DataFrame({**metrics, "place": place}).drop_duplicates("place", keep="last").set_index("place")
        gap = numpy.diff(table.index, prepend=table.index[0]) - 1
        for number, segment in table.groupby(numpy.cumsum(gap > LONGEST_GAP)):
            whole = segment.reindex(range(segment.index[0], segment.index[-1] + 1))
            known = {f"{name}_measured": whole[name].notna() for name in NAMES}
            frames.append(whole.ffill().assign(server=path.stem, segment=f"{path.stem}/{number}", **known))
    frame = pandas.concat(frames).reset_index(names="place")
    turns = {"hour": frame.place * STEP % DAY / DAY, "weekday": (frame.place * STEP // DAY + 3) % WEEK / WEEK}
    for name, turn in turns.items():
        frame[f"{name}_sin"], frame[f"{name}_cos"] = numpy.sin(2 * numpy.pi * turn), numpy.cos(2 * numpy.pi * turn)
    return frame


def every(stride: int, begin: int, end: int, frame: pandas.DataFrame) -> Callable[[Any], Any]:
    """Return a filter of windows: their horizon within [begin, end), every `stride`-th of a segment, none beyond it."""
    segments = frame.set_index(["server", "place"]).segment

    def kept(index: Any) -> Any:
        begins, ends = (
            segments.loc[list(zip(index["server"], index[f"time_idx_{edge}"], strict=True))].to_numpy()
            for edge in ("first", "last")
        )
        first = index["time_idx_first_prediction"]
        within = (begins == ends) & (first >= begin) & (first + HORIZON <= end)
        start = first.where(within).groupby(begins).transform("min")
        return within & ((first - start) % stride == 0)

    return kept


def train(frame: pandas.DataFrame, target: str, units: list[list[float]], job: Job) -> list[float]:
    """Train, validate and test the model of a target; return the sums of the test."""
    import lightning
    from pytorch_forecasting import TemporalFusionTransformer, TimeSeriesDataSet
    from pytorch_forecasting.metrics import QuantileLoss

    lightning.seed_everything(job.seed, verbose=False)
    val, test, end = second(VAL) // STEP, second(TEST) // STEP, int(frame.place.max()) + 1
    training = TimeSeriesDataSet(
        frame[frame.place < val],
        time_idx="place",
        target=target,
        group_ids=["server"],
        max_encoder_length=CONTEXT,
        max_prediction_length=HORIZON,
        static_categoricals=["server"],
        time_varying_known_reals=list(CALENDAR),
        time_varying_unknown_reals=list(NAMES),
        add_relative_time_idx=True,
        add_target_scales=True,
        add_encoder_length=True,
        allow_missing_timesteps=True,
    ).filter(every(1, 0, val, frame))
    held_out = {
        part: TimeSeriesDataSet.from_dataset(
            training, frame[frame.place < last], min_prediction_idx=first, stop_randomization=True
        ).filter(every(job.eval_stride, first, last, frame))
        for part, first, last in (("val", val, test), ("test", test, end))
    }
    loader = {part: data.to_dataloader(train=False, batch_size=BATCH, num_workers=0) for part, data in held_out.items()}
    model = TemporalFusionTransformer.from_dataset(
        training, hidden_size=HIDDEN, attention_head_size=HEADS, dropout=DROPOUT, hidden_continuous_size=16,
        loss=QuantileLoss(list(LEVELS)), learning_rate=job.rate, optimizer="adam",
    )  # fmt: skip
    trainer = lightning.Trainer(
        max_epochs=1, limit_train_batches=job.steps, accelerator="cpu", gradient_clip_val=CLIP,
        default_root_dir=job.out, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, training.to_dataloader(train=True, batch_size=BATCH, num_workers=0), loader["val"])
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    forecast = model.predict(loader["test"], mode="quantiles", return_index=True, trainer_kwargs=quiet)
    return judged(frame, target, units, forecast)


def judged(frame: pandas.DataFrame, target: str, units: list[list[float]], forecast: Any) -> list[float]:
    """Return the sums of forecasts beside the truth of the table."""
    import numpy
    import torch

    keys = frame.assign(row=numpy.arange(len(frame))).set_index(["server", "place"]).row
    first = keys.loc[list(zip(forecast.index.server, forecast.index.place, strict=True))].to_numpy()
    rows = first[:, None] + numpy.arange(HORIZON)
    truth, measured = (torch.from_numpy(frame[name].to_numpy()[rows]) for name in (target, f"{target}_measured"))
    server = torch.from_numpy(numpy.unique(frame.server, return_inverse=True)[1][first])
    scale = torch.tensor(units, dtype=torch.float64)
    sums = sums_of(forecast.output.unsqueeze(2), truth.unsqueeze(2), measured.unsqueeze(2), server, scale)
    return [float(value) for value in sums[0]]


def run(job: Job) -> None:
    """Do the job, a model for each metric."""
    warnings.filterwarnings("ignore")
    import lightning  # noqa: F401
    import pytorch_forecasting  # noqa: F401

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    imported = job.mark()
    frame = read(job.data)
    sums, marks = [], []
    for place, name in enumerate(NAMES):
        sums.append(train(frame, name, [[server[place]] for server in job.units], job))
        marks.append(job.mark())
    job.tell(sums, imported, marks)
