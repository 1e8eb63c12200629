"""Reports: what happened, readable by people, with nothing from data taken for markup, and no secrets."""

from __future__ import annotations

import html.parser
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from trainkit.errors import CheckpointError
from trainkit.report import Facts, duration, environment, number, readable, stage_table, write_report
from trainkit.reporting.axes import short, thinned, ticks
from trainkit.reporting.chart import chart
from trainkit.reporting.modelcard import model_card
from trainkit.reporting.reportpage import page
from trainkit.reporting.runcharts import chart_series
from trainkit.rundir import MetricsFile, RunDirectory

HOSTILE = "<script>alert(1)</script>\x1b[31m\"'&|`[x](javascript:1)"


def facts(text: str = "embedded sample") -> Facts:
    name = text.replace("/", "")  # a slash in a tag is structure
    return Facts(
        name=text,
        summary={
            "strategy": text, "status": "done", "steps": 200, "epochs": 4, "samples": 3200, "seconds": 214.2,
            "monitor": "val/loss", "best": 0.5, "best_step": 180, "stop_reason": text,
            "best_checkpoints": [{"step": 180, "value": 0.5}, {"step": 90, "value": 0.75}],
        },
        results={
            "model": {"train/loss": 0.3, "val/loss": 0.5, "test/loss": 0.6, "test/f1": 0.71234, f"test/{name}": 1.0},
            "majority": {"test/f1": 0.1},
            text: {"test/f1": math.nan},
        },
        config={"optimizer.lr": (3e-4, "strategy", text), "data": (text, "flag", ""), "callback": ([text], "flag", "")},
        plan={
            "plan": {"notes": [text]},
            "stages": [
                {
                    "name": text, "trainable": ["head.*", text], "lr_factor": 0.5, "selection": {"easiest": 0.5},
                    "length": {"samples": 1600, "epochs": 3, "steps": 150, "steps_per_epoch": 50},
                },
                {"name": "all", "trainable": ["*"], "length": {"samples": 800, "epochs": 1, "steps": 50}},
            ],
            "data": {"source": text, "fingerprint": text, "samples": {"train": 35, "val": 5}, "warnings": [text]},
        },
        rows=[
            {"step": step, "train/loss": 1 / step, "val/loss": 2 / step, "val/f1": step / 9, f"val/f1/{name}": 1.0}
            for step in range(1, 9)
        ],
        components=[{"kind": "task", "name": text, "distribution": text, "version": "0.1.0"}],
        environment={"python": "3.11", "torch": text, "variables": {"OMP_NUM_THREADS": text}},
    )  # fmt: skip


class Elements(html.parser.HTMLParser):
    """Collect elements, and check that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    elements.close()
    assert elements.open == []
    return elements


class TestPage:
    def test_it_shows_results_curves_plan_settings_and_notes(self) -> None:
        elements = parsed(page(facts()))
        for word in (
            "0.7123",
            "majority",
            "loss",
            "f1",
            "head.*",
            "easiest 50 %",
            "optimizer.lr",
            "3 min 34 s",
            "OMP_NUM",
        ):
            assert word in elements.text
        assert elements.names.count("svg") >= 2
        assert elements.names.count("polyline") >= 3

    def test_nothing_from_data_becomes_markup(self) -> None:
        plain, hostile = parsed(page(facts())), parsed(page(facts(HOSTILE)))
        assert hostile.names == plain.names
        assert hostile.attributes == plain.attributes
        assert "script" not in hostile.names
        assert "<script>alert(1)" in hostile.text
        assert "\x1b" not in hostile.text

    def test_it_needs_nothing_from_elsewhere(self) -> None:
        text = page(facts())
        assert not re.search(r"https?:|src=|href=|url\(|@import", text)
        assert not [name for name in parsed(text).attributes if name.startswith("on")]

    def test_a_run_that_has_nothing_yet_has_a_page(self) -> None:
        assert "<h1>empty</h1>" in page(Facts("empty"))


class TestCard:
    def test_it_tells_what_with_what_and_how_well(self) -> None:
        card = model_card(facts())
        for word in (
            "| f1 |  |  | 0.7123 |",
            "| majority test |",
            "35 train, 5 val",
            "--resume",
            "trainkit evaluate",
            "Best checkpoint: step 180, val/loss 0.5.",
            "Kept beside it, the best first: step 90 (0.75).",
            "0.1.0",
        ):
            assert word in card, word
        assert card.startswith("---\nlibrary_name: trainkit\n")

    @pytest.mark.parametrize(
        ("out", "run"),
        [("trained/first", "trained/first"), ("a b; rm", "runs/mine"), ("-rf", "runs/mine"), (None, "runs/mine")],
    )
    def test_its_commands_name_the_folder_of_the_run(self, out: str | None, run: str) -> None:
        config = {} if out is None else {"out": (out, "--out", "")}
        card = model_card(Facts("mine", config=config))
        for command in (f"evaluate {run} --split", f"predict {run} INPUT", f"run --resume {run} "):
            assert f"trainkit {command}" in card

    def test_nothing_from_data_becomes_markup(self) -> None:
        plain, hostile = model_card(facts()).splitlines(), model_card(facts(HOSTILE)).splitlines()
        assert len(plain) == len(hostile)
        for line in hostile:
            assert "\x1b" not in line
            assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(", line)
        for before, after in zip(plain, hostile, strict=True):
            assert len(re.findall(r"(?<!\\)\|", before)) == len(re.findall(r"(?<!\\)\|", after))

    def test_a_run_that_has_nothing_yet_has_a_card(self) -> None:
        assert "# empty" in model_card(Facts("empty"))


class TestTables:
    def test_stages_say_what_differs(self) -> None:
        _, body = stage_table(facts().stages())
        assert body[1] == ["all", "800", "1", "50", "as scheduled", "all", "all"]
        assert body[0][4] == "x 0.5"

    @pytest.mark.parametrize(
        ("value", "shown"),
        [(3, "3"), (0.123456, "0.1235"), (None, ""), (math.nan, "nan"), ("nan", "nan"), (1e-9, "1e-09"), ("x", "x")],
    )
    def test_numbers(self, value: Any, shown: str) -> None:
        assert number(value) == shown

    @pytest.mark.parametrize(("seconds", "shown"), [(0.2, "0 s"), (62, "1 min 2 s"), (7500, "2 h 5 min"), (None, "")])
    def test_durations(self, seconds: Any, shown: str) -> None:
        assert duration(seconds) == shown


class TestCharts:
    def test_special_numbers_make_gaps(self) -> None:
        drawing = chart({"a": [(1, 1.0), (2, 2.0), (3, math.nan), (4, 1.0), (5, math.inf), (6, 2.0), (7, 3.0)]})
        assert drawing.count("<polyline") == 2
        assert drawing.count("<circle") == 1
        assert "nan" not in drawing
        assert "inf" not in drawing

    def test_nothing_finite_makes_no_chart(self) -> None:
        assert chart({"a": [(1, math.nan)], "b": []}) == ""

    @pytest.mark.parametrize(
        "values", [[0.0], [5.0, 5.0], [-1e-300, 1e-300], [1e300, -1e300], [1e-9, 1e9], [0.0, 1e12]]
    )
    def test_points_stay_in_the_frame(self, values: list[float]) -> None:
        drawing = chart({"a": list(enumerate(values))})
        for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall(r'points="([^"]+)"', drawing))):
            assert 0 <= float(x) <= 560
            assert 0 <= float(y) <= 260

    def test_thinning_keeps_spikes_and_gaps(self) -> None:
        points = [(float(i), 1.0) for i in range(10_000)]
        points[4321] = (4321.0, 99.0)
        points[7000] = (7000.0, math.nan)
        kept = thinned(points)
        assert len(kept) <= 402
        assert (4321.0, 99.0) in kept
        assert any(math.isnan(y) for _, y in kept)
        assert [x for x, _ in kept] == sorted(x for x, _ in kept)

    def test_ticks_are_round(self) -> None:
        assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        assert ticks(13, 2000) == [500, 1000, 1500, 2000]
        assert ticks(3, 3) == [3]

    @pytest.mark.parametrize(
        ("value", "shown"), [(0, "0"), (0.25, "0.25"), (1200, "1200"), (12000, "12k"), (3e-5, "3e-5"), (2.5e6, "2.5e6")]
    )
    def test_axis_numbers(self, value: float, shown: str) -> None:
        assert short(value) == shown

    def test_loss_comes_first_and_metrics_share_a_chart_with_their_parts(self) -> None:
        tags = "val/f1/recall val/loss train/grad_norm train/loss/a train/loss train/learning_rate val/f1 val/f1/exact"
        row = {"step": 1, "final/test/loss": 1, "time/eta": 1} | dict.fromkeys(tags.split(), 1)
        charts = dict(chart_series([row, {"step": math.nan, "val/x": 1}, {"val/y": 1}]))
        assert list(charts) == ["loss", "f1", "parts of the loss", "learning rate", "grad norm"]
        assert list(charts["loss"]) == ["train/loss", "val/loss"]
        assert list(charts["f1"]) == ["val/f1", "val/f1/exact", "val/f1/recall"]

    def test_what_a_machine_did_stands_last_each_figure_by_itself(self) -> None:
        tags = ["system/cpu_percent", "train/gradient_noise", "val/f1", "raw/val/f1", "time/eta", "system/gpu_watts"]
        charts = dict(chart_series([dict.fromkeys(["step", *tags], 1)]))
        assert list(charts) == ["f1", "gradient noise", "system/cpu percent", "system/gpu watts"]

    def test_many_figures_leave_the_main_one_alone_and_parts_stand_beside_each_other(self) -> None:
        figures = [f"val/error/{figure}" for figure in "abcdefg"]
        parts = [f"val/error/{figure}/{part}" for figure in ("mase", "a") for part in ("cpu", "disk", "step-3")]
        many = [f"val/error/mase/series/{number:02}" for number in range(20)]
        charts = dict(chart_series([dict.fromkeys(["step", "val/error", *figures, *parts, *many], 1)]))
        assert list(charts) == ["error", "error by part", "error by series", "error by step"]
        assert list(charts["error"]) == ["val/error"]
        assert list(charts["error by part"]) == ["val/error/mase/cpu", "val/error/mase/disk"]
        assert list(charts["error by series"]) == many[:12]

    def test_many_series_differ_in_colour_or_dashes(self) -> None:
        drawing = chart({f"s{i}": [(0, i), (1, i)] for i in range(9)})
        looks = re.findall(r'class="line ([^"]+)"', drawing)
        assert len(set(looks)) == 9


class TestWholeRun:
    def test_the_files_of_a_run_become_a_report(self, tmp_path: Path) -> None:
        directory = RunDirectory.create(tmp_path / "first", "x")
        file = MetricsFile(directory.metrics_path)
        for row in facts().rows:
            file.append(row)
        file.close()
        directory.write_json("results.json", {**facts().summary, "results": facts().results})
        directory.write_json("plan.json", facts().plan)
        directory.write_json("components.json", facts().components)
        directory.write_json("environment.json", environment())
        history = {key: [{"value": v, "origin": o, "reason": r}] for key, (v, o, r) in facts().config.items()}
        directory.write_json("resolved.json", history)
        write_report(directory)
        text = (directory.path / "report.html").read_text()
        assert "<h1>first</h1>" in text
        assert "0.7123" in text
        assert "<svg" in text
        assert "0.7123" in (directory.path / "README.md").read_text()

    def test_a_run_directory_without_records_has_a_report(self, tmp_path: Path) -> None:
        directory = RunDirectory.create(tmp_path / "first", "x")
        write_report(directory)
        assert (directory.path / "report.html").exists()

    def test_damaged_records_are_named(self, tmp_path: Path) -> None:
        directory = RunDirectory.create(tmp_path / "first", "x")
        (directory.path / "plan.json").write_text("{")
        with pytest.raises(CheckpointError):
            write_report(directory)


class TestEnvironment:
    def test_it_says_what_a_result_depends_on(self) -> None:
        known = environment()
        assert known["torch"].startswith("2.")
        assert known["cores"] == os.cpu_count()
        assert "numpy" in known["distributions"]

    def test_it_holds_no_arguments_paths_or_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "canary-1")
        monkeypatch.setenv("TRAINKIT_SECRET", "canary-2")
        monkeypatch.setattr("sys.argv", ["trainkit", "--token", "canary-3"])
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        text = repr(environment())
        assert "canary" not in text
        assert str(Path.home()) not in text
        assert os.getcwd() not in text
        assert environment()["variables"]["OMP_NUM_THREADS"] == "7"

    def test_paths_lose_the_home_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/somebody")
        assert readable("/home/somebody/data") == "~/data"
        assert readable("/data") == "/data"
