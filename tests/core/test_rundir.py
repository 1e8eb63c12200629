"""Run directories are never shared or overwritten; their records survive crashes."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trainkit.errors import CheckpointError, ResourceError, UsageError
from trainkit.rundir import MetricsFile, RunDirectory, rows

HOLD = "import sys, time; from pathlib import Path; from trainkit.rundir import RunDirectory as R; "


class TestCreate:
    def test_a_default_directory_has_name_time_and_digits(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        paths = {RunDirectory.create(None, "my layout/1").path for _ in range(5)}
        assert len(paths) == 5
        assert all(re.fullmatch(r"runs/my-layout-1-\d{8}-\d{6}-[0-9a-f]{4}", str(path)) for path in paths)

    @pytest.mark.parametrize("name", ["", "..", "/", "-x", "ä"])
    def test_any_name_makes_a_plain_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        path = RunDirectory.create(None, name).path
        assert path.parent == Path("runs")
        assert path.name[0].isalnum()

    def test_a_named_directory_may_be_new_or_empty(self, tmp_path: Path) -> None:
        assert RunDirectory.create(tmp_path / "a" / "b", "x").path == tmp_path / "a" / "b"
        (tmp_path / "empty").mkdir()
        directory = RunDirectory.create(tmp_path / "empty", "x")
        assert directory.read_json("status.json")["state"] == "new"
        assert directory.checkpoints == tmp_path / "empty" / "checkpoints"

    def test_one_with_content_is_refused_with_a_hint(self, tmp_path: Path) -> None:
        RunDirectory.create(tmp_path / "run", "x").close()
        with pytest.raises(UsageError, match="not empty") as caught:
            RunDirectory.create(tmp_path / "run", "x")
        assert f"--resume {tmp_path / 'run'}" in caught.value.do
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "thesis.doc").write_text("precious")
        with pytest.raises(UsageError, match="not empty") as caught:
            RunDirectory.create(tmp_path / "other", "x")
        assert "--resume" not in caught.value.do
        assert os.listdir(tmp_path / "other") == ["thesis.doc"]

    def test_a_file_or_a_refusing_system_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(UsageError, match="no folder"):
            RunDirectory.create(tmp_path / "file", "x")
        with pytest.raises(ResourceError, match="cannot be written"):
            RunDirectory.create(Path("/proc/run"), "x")

    def test_files_follow_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            directory = RunDirectory.create(tmp_path / "run", "x")
        finally:
            os.umask(before)
        assert (directory.path.stat().st_mode & 0o777) == 0o750
        assert ((directory.path / "status.json").stat().st_mode & 0o777) == 0o640


class TestLock:
    def test_a_second_user_is_refused_with_the_number_of_the_first(self, tmp_path: Path) -> None:
        directory = RunDirectory.create(tmp_path / "run", "x")
        with pytest.raises(UsageError, match="another process") as caught:
            RunDirectory.open(tmp_path / "run")
        assert caught.value.why.startswith(f"process {os.getpid()} on ")
        assert RunDirectory.read(tmp_path / "run").read_json("status.json")["state"] == "new"
        directory.close()
        RunDirectory.open(tmp_path / "run").close()

    def test_a_killed_process_leaves_no_lock_even_if_a_child_lives_on(self, tmp_path: Path) -> None:
        code = HOLD + (
            "d = R.create(Path(sys.argv[1]), 'x'); import os; child = os.fork()\n"
            "if child: print(child, flush=True)\n"
            "else: Path(sys.argv[1]).with_name('forked').touch()\n"
            "time.sleep(60)"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            # A child lets go of the lock when it first runs: that may be after its parent has printed its number.
            deadline = time.monotonic() + 30
            while not (tmp_path / "forked").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            with pytest.raises(UsageError, match="another process") as caught:
                RunDirectory.open(tmp_path / "run")
            assert f"process {holder.pid} on" in caught.value.why
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            os.kill(child, 0)
            RunDirectory.open(tmp_path / "run").close()
        finally:
            os.kill(child, signal.SIGKILL)
            holder.stdout.close()

    @pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b'{"pid": "x", "host": 1}'])
    def test_a_damaged_lock_file_is_only_a_lock(self, tmp_path: Path, content: bytes) -> None:
        held = RunDirectory.create(tmp_path / "run", "x")
        (tmp_path / "run" / "run.lock").write_bytes(content)
        with pytest.raises(UsageError, match="another process"):
            RunDirectory.open(tmp_path / "run")
        held.close()


class TestRecords:
    def test_only_run_directories_are_opened(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "missing"):
            for way in (RunDirectory.open, RunDirectory.read):
                with pytest.raises(CheckpointError, match="not a run directory"):
                    way(path)
        assert list(tmp_path.iterdir()) == []

    def test_json_and_text_come_back(self, tmp_path: Path) -> None:
        directory = RunDirectory.create(tmp_path / "run", "x")
        directory.write_json("plan.json", {"best": math.nan, "names": ["ä\ud800"]})
        assert directory.read_json("plan.json") == {"best": "nan", "names": ["ä\ud800"]}
        directory.write_text("README.md", "ä\ud800")
        assert (directory.path / "README.md").read_text(encoding="utf-8") == "ä?"
        directory.write_text("README.md", "second")
        assert (directory.path / "README.md").read_text() == "second"
        assert sorted(os.listdir(directory.path)) == ["README.md", "plan.json", "run.lock", "status.json"]

    @pytest.mark.parametrize("name", ["../x", "a/b", ".", "..", "", "/etc/x"])
    def test_names_stay_inside(self, tmp_path: Path, name: str) -> None:
        directory = RunDirectory.create(tmp_path / "run", "x")
        with pytest.raises(ValueError, match="plain file name"):
            directory.write_text(name, "x")
        with pytest.raises(ValueError, match="plain file name"):
            directory.read_json(name)

    @pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1, "a": 2}', b"\xff", b"[" * 9999])
    def test_damaged_records_are_refused(self, tmp_path: Path, content: bytes) -> None:
        directory = RunDirectory.create(tmp_path / "run", "x")
        (directory.path / "plan.json").write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged") as caught:
            directory.read_json("plan.json")
        assert caught.value.where.endswith("plan.json")

    def test_the_status_tells_how_it_ended(self, tmp_path: Path) -> None:
        directory = RunDirectory.create(tmp_path / "run", "x")
        directory.status("stopped", reason="patience", step=7, best=0.5, exit_code=75)
        status = directory.read_json("status.json")
        assert status.pop("updated")
        assert status == {"state": "stopped", "reason": "patience", "step": 7, "best": 0.5, "exit_code": 75}

    def test_a_killed_writer_leaves_one_of_two_whole_files(self, tmp_path: Path) -> None:
        code = HOLD + (
            "d = R.create(Path(sys.argv[1]), 'x'); print('on', flush=True)\n"
            "for i in range(10**9): d.write_json('plan.json', {'number': i, 'filler': 'x' * 3000})"
        )
        for number in range(4):
            path = tmp_path / f"run-{number}"
            writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.02 * (number + 1))
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
            directory = RunDirectory.open(path)
            if (path / "plan.json").exists():
                assert len(directory.read_json("plan.json")["filler"]) == 3000
            assert not [name for name in os.listdir(path) if name.startswith(".tmp-")]
            directory.write_json("plan.json", 1)
            assert directory.read_json("plan.json") == 1


class TestMetrics:
    def test_rows_come_back_with_their_special_numbers(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        written = [{"step": 1, "train/loss": 0.1}, {"step": 2, "train/loss": math.inf, "note": "ä"}]
        with_file = MetricsFile(path)
        for row in written:
            with_file.append(row)
        assert list(rows(path)) == written
        with_file.append({"step": 3, "train/loss": math.nan})
        assert math.isnan(list(rows(path))[-1]["train/loss"])
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
        assert with_file.offset == path.stat().st_size
        with_file.sync()
        with_file.close()

    def test_a_resumed_run_logs_no_step_twice(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        file = MetricsFile(path)
        offsets = []
        for step in range(5):
            file.append({"step": step})
            offsets.append(file.offset)
        file.close()
        file = MetricsFile(path)
        assert file.truncate(offsets[2]) == 0
        file.append({"step": 3})
        file.append({"step": 4})
        assert [row["step"] for row in rows(path)] == [0, 1, 2, 3, 4]
        assert file.truncate(0) == 0
        assert list(rows(path)) == []
        file.close()

    def test_rows_lost_in_a_power_cut_are_counted_not_replaced_by_zeros(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        file = MetricsFile(path)
        file.append({"step": 0})
        offset = file.offset
        assert file.truncate(offset + 100) == 100
        assert path.read_bytes() == b'{"step":0}\n'
        file.close()

    @pytest.mark.parametrize("size", [1, 5, 100_000])
    def test_a_cut_last_line_is_left_out_and_removed(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(b'{"step":0}\n' + b'{"a":"' + b"x" * size)
        assert list(rows(path)) == [{"step": 0}]
        file = MetricsFile(path)
        file.append({"step": 1})
        file.close()
        assert list(rows(path)) == [{"step": 0}, {"step": 1}]

    @pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff", b'{"a":1,"a":2}', b"{}" * 2, b""])
    def test_a_damaged_line_is_named_by_its_number(self, tmp_path: Path, line: bytes) -> None:
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(b'{"step":0}\n' + line + b"\n" + b'{"step":2}\n')
        with pytest.raises(CheckpointError, match="damaged") as caught:
            list(rows(path))
        assert caught.value.where == f"{path}, line 2"

    def test_a_full_disk_is_said(self) -> None:
        file = MetricsFile(Path("/dev/full"))
        with pytest.raises(ResourceError, match="cannot be written") as caught:
            file.append({"step": 1})
        assert "free space" in caught.value.do
        file.close()

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "target").write_text("precious")
        (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "target")
        with pytest.raises(ResourceError):
            MetricsFile(tmp_path / "metrics.jsonl")
        assert (tmp_path / "target").read_text() == "precious"
