"""What a training step of the Temporal Fusion Transformer costs, beside pytorch-forecasting's under Lightning.

The step of the server-metrics job: 4 servers, 4 metrics and 3 calendar columns, context 288, horizon 96, hidden 32,
8 heads, 7 quantiles, batch 32, Adam, gradients clipped at .1, one thread. Each contestant lives in a process of its
own and they step in turn, a few steps a round; the ratios are medians of those of the rounds. Wall time is what
counts; on a machine that does other work, too, the CPU time of the process says more. `over imports` is the peak of
the resident memory less what it was before the model and its data were made.

    pip install --target peers pytorch-forecasting==1.8.0 lightning==2.6.6
    PYTHONPATH=peers python tests/benchmarks/bench_tft.py [ROUNDS]

Without pytorch-forecasting, trainkit's contestants run alone. What pytorch-forecasting is given: every variable that
ours has, its relative time index, and its statics (the server, the scale of the target, the length of the past). Its
real variables are embedded in 16 numbers, or, like ours, in 32 (`wide`).
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROWS, SERVERS, CONTEXT, HORIZON, BATCH, WIDTH, HEADS, DROPOUT = 2400, 4, 288, 96, 32, 32, 8, 0.15
METRICS, CALENDAR = ("cpu_percent", "memory_percent", "disk_write", "network_in"), ("hour", "weekday", "month")
WARM_UP, STEPS = 3, 4
OURS = ("trainkit, 1 target", "trainkit, 4 targets")
PEERS = ("pytorch-forecasting", "pytorch-forecasting, wide")


def make_series() -> tuple[torch.Tensor, torch.Tensor]:
    """Return metrics [SERVERS, ROWS, 4] around a daily wave, and calendar columns [ROWS, 3], about 0."""
    generator = torch.Generator().manual_seed(0)
    step = torch.arange(ROWS, dtype=torch.float32)
    wave = torch.sin(step / 288 * 2 * torch.pi)[None, :, None]
    metrics = wave + 0.3 * torch.randn(SERVERS, ROWS, len(METRICS), generator=generator)
    calendar = torch.stack([step // 12 % 24 / 24, step // 288 % 7 / 7, step // 8640 / 12], dim=1)
    return metrics, calendar - 0.5


def our_batches(targets: int) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Yield batches of windows for ever, gathered from strided views, and the truth [B, H, T]."""
    metrics, calendar = make_series()
    windows = metrics.unfold(1, CONTEXT + HORIZON, 1).transpose(2, 3)
    known = calendar.unfold(0, CONTEXT + HORIZON, 1).transpose(1, 2)
    count = windows.shape[1]
    while True:
        for order in torch.randperm(SERVERS * count).split(BATCH)[:-1]:
            server, start = order // count, order % count
            window, features = windows[server, start], known[start]
            yield (
                {
                    "past_values": window[:, :CONTEXT, :targets],
                    "past_observed_mask": torch.ones(BATCH, CONTEXT, targets, dtype=torch.bool),
                    "past_time_features": features[:, :CONTEXT],
                    "future_time_features": features[:, CONTEXT:],
                    "static_categorical_features": server[:, None],
                }
                | ({"past_covariates": window[:, :CONTEXT, targets:]} if targets < len(METRICS) else {}),
                window[:, CONTEXT:, :targets],
            )


def our_steps(targets: int) -> Callable[[], float]:
    """Return a function that trains for a step and answers with the loss."""
    from trainkit_task_series.tft import TemporalFusionTransformer, Variables

    variables = Variables(targets, len(METRICS) - targets, len(CALENDAR), (SERVERS,))
    model = TemporalFusionTransformer(variables, HORIZON, width=WIDTH, heads=HEADS, dropout=DROPOUT)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    batches = our_batches(targets)

    def step() -> float:
        batch, truth = next(batches)
        outputs = model(**batch)
        error = truth[..., None] - outputs["quantiles"]
        levels = outputs["quantile_levels"]
        loss = torch.maximum(levels * error, (levels - 1) * error).sum(-1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


class Turns:
    """Take turns with the other contestants: wait for a line, run STEPS steps, answer with what they cost."""

    def __init__(self, imports_kib: int) -> None:
        self.imports_kib, self.done, self.wall, self.cpu = imports_kib, 0, 0.0, 0.0

    def begin(self) -> None:
        """Wait for the next turn, where a turn begins here."""
        if self.done >= WARM_UP and (self.done - WARM_UP) % STEPS == 0:
            print("ready", flush=True)
            if not sys.stdin.readline().strip():
                print(status_kib("VmHWM"), self.imports_kib, flush=True)
                raise SystemExit
            self.wall, self.cpu = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Count a step, and answer where a turn ends here."""
        self.done += 1
        if self.done > WARM_UP and (self.done - WARM_UP) % STEPS == 0:
            wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
            print(wall / STEPS, cpu / STEPS, flush=True)


def status_kib(field: str) -> int:
    """Return a figure of this process in KiB, as VmHWM, its peak of resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def run_ours(targets: int) -> None:
    """Take turns with trainkit's model in a plain loop."""
    turns = Turns(status_kib("VmRSS"))
    step = our_steps(targets)
    while True:
        turns.begin()
        step()
        turns.end()


def run_peer(embedded: int) -> None:
    """Take turns with pytorch-forecasting's model under Lightning, fed by its own DataLoader."""
    import logging
    import warnings

    warnings.filterwarnings("ignore")
    import lightning
    import pandas
    from pytorch_forecasting import TemporalFusionTransformer, TimeSeriesDataSet
    from pytorch_forecasting.metrics import QuantileLoss

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    turns = Turns(status_kib("VmRSS"))
    metrics, calendar = make_series()
    frames = []
    for server in range(SERVERS):
        frame = pandas.DataFrame({"time": range(ROWS), "server": f"server {server}"})
        frame[list(METRICS)] = metrics[server].numpy()
        frame[list(CALENDAR)] = calendar.numpy()
        frames.append(frame)
    data = TimeSeriesDataSet(
        pandas.concat(frames, ignore_index=True),
        time_idx="time",
        target=METRICS[0],
        group_ids=["server"],
        max_encoder_length=CONTEXT,
        max_prediction_length=HORIZON,
        static_categoricals=["server"],
        time_varying_known_reals=list(CALENDAR),
        time_varying_unknown_reals=list(METRICS),
        add_relative_time_idx=True,
        add_target_scales=True,
        add_encoder_length=True,
    )
    model = TemporalFusionTransformer.from_dataset(
        data, hidden_size=WIDTH, attention_head_size=HEADS, dropout=DROPOUT, hidden_continuous_size=embedded,
        loss=QuantileLoss(), log_interval=0, learning_rate=1e-3, optimizer="adam",
    )  # fmt: skip

    class TakeTurns(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            turns.end()
            turns.begin()

    trainer = lightning.Trainer(
        max_epochs=100, accelerator="cpu", gradient_clip_val=0.1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[TakeTurns()],
    )  # fmt: skip
    trainer.fit(model, data.to_dataloader(train=True, batch_size=BATCH, num_workers=0))


class Contestant:
    """Drive the process of a contestant."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, __file__, "--contestant", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect("ready")
        self.rounds: list[tuple[float, float]] = []

    def expect(self, start: str) -> str:
        """Return the next line that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        raise RuntimeError(f"a contestant ended early: {self.process.args!r}")

    def say(self, text: str) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def round(self) -> None:
        """Let it step, and note seconds of wall and of CPU a step."""
        self.say("go")
        wall, cpu = self.expect("").split()
        self.rounds.append((float(wall), float(cpu)))
        self.expect("ready")

    def end(self) -> tuple[int, int]:
        """End it; return its peak of resident memory, and what it was after the imports, in KiB."""
        self.say("")
        peak, imports = self.expect("").split()
        self.process.wait()
        return int(peak), int(imports)


def main() -> None:
    """Print wall and CPU time of a step, memory, and ratios to the first contestant."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    peers = PEERS if importlib.util.find_spec("pytorch_forecasting") else ()
    contestants = {name: Contestant(name) for name in (*peers, *OURS)}
    for _ in range(rounds + 1):
        for contestant in contestants.values():
            contestant.round()
    base = next(iter(contestants.values()))
    print(f"{rounds} rounds of {STEPS} steps each in turn, one thread, torch {torch.__version__}")
    titles = (("wall, ms", 10), ("ratio", 8), ("CPU, ms", 10), ("ratio", 8), ("peak MiB", 10), ("over imports", 14))
    print(f"{'contestant':<28}" + "".join(f"{title:>{width}}" for title, width in titles))
    for name, contestant in contestants.items():
        cells = ""
        for kind in (0, 1):
            times = [figures[kind] for figures in contestant.rounds[1:]]
            first = [figures[kind] for figures in base.rounds[1:]]
            ratio = statistics.median(a / b for a, b in zip(times, first, strict=True))
            cells += f"{1e3 * statistics.median(times):>10.0f}{ratio:>8.2f}"
        peak, imports = contestant.end()
        print(f"{name:<28}{cells}{peak / 1024:>10.0f}{(peak - imports) / 1024:>14.0f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--contestant"]:
        chosen = sys.argv[2]
        if chosen in OURS:
            run_ours(1 if chosen == OURS[0] else len(METRICS))
        else:
            run_peer(16 if chosen == PEERS[0] else WIDTH)
    else:
        main()
