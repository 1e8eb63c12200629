"""Checkpoints: what is saved comes back, what is damaged is found, what is needed stays."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from trainkit.best import Ranked, ranked
from trainkit.checkpoint import Checkpoint, Checkpoints, Snapshot, retained
from trainkit.errors import CheckpointError, ResourceError, RunFailed
from trainkit.storage import bestrecord
from trainkit.storage.filesystem import FileSystem


def snapshot(step: int, size: int = 6) -> Snapshot:
    return Snapshot(
        step,
        {"model.safetensors": {"weight": torch.arange(size, dtype=torch.float32) + step}},
        {"state.json": {"step": step, "text": "ä\ud800"}},
        {"epoch": step // 10, "loss": math.nan, "seen": (1, 2)},
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestRoundTrip:
    def test_what_is_saved_comes_back(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        checkpoints.save(snapshot(10))
        (checkpoint,) = checkpoints.finished()
        assert checkpoints.finished() == []
        found = Checkpoints(tmp_path / "checkpoints").newest_valid()
        assert found is not None
        assert (found.path, found.step) == (checkpoint.path, 10)
        assert torch.equal(found.tensors("model.safetensors")["weight"], torch.arange(6.0) + 10)
        assert found.document("state.json") == {"step": 10, "text": "ä\ud800"}
        assert found.facts["seen"] == (1, 2)
        assert math.isnan(found.facts["loss"])
        target = torch.zeros(6)
        found.load_into("model.safetensors", {"weight": target})
        assert torch.equal(target, torch.arange(6.0) + 10)

    def test_tensors_may_change_while_a_thread_writes(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        weight = torch.zeros(2_000_000)
        for step in range(1, 4):
            weight.fill_(step)
            checkpoints.save(Snapshot(step, {"model.safetensors": {"w": weight, "tied": weight}}), background=True)
            weight.fill_(-1)
        done = checkpoints.wait()
        assert [checkpoint.step for checkpoint in done] == [1, 2, 3]
        tensors = done[-1].tensors("model.safetensors")
        assert torch.equal(tensors["w"], torch.full((2_000_000,), 3.0))
        assert tensors["tied"].data_ptr() == tensors["w"].data_ptr()

    def test_buffers_are_used_again(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        tensors = {"model.safetensors": {"w": torch.ones(100)}}
        first = checkpoints._buffers.hold(tensors)["model.safetensors"]["w"].data_ptr()
        assert checkpoints._buffers.hold(tensors)["model.safetensors"]["w"].data_ptr() == first

    def test_a_step_is_saved_once(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        checkpoints.save(snapshot(1))
        with pytest.raises(CheckpointError, match="step 1 already"):
            checkpoints.save(snapshot(1))
        assert Checkpoints(tmp_path / "checkpoints").newest_valid() is not None

    def test_an_empty_or_missing_folder_has_no_checkpoint(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        assert checkpoints.newest_valid() is None
        assert checkpoints.best() is None
        assert not (tmp_path / "checkpoints").exists()

    def test_order_is_by_step_not_by_time_or_spelling(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
        for step in (9, 10, 100):
            checkpoints.save(snapshot(step))
        os.utime(tmp_path / "checkpoints" / "checkpoint-9", (2**31, 2**31))
        found = checkpoints.newest_valid()
        assert found is not None
        assert found.step == 100


class TestRefusals:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64])
    def test_weights_that_are_not_finite(self, tmp_path: Path, value: float, dtype: torch.dtype) -> None:
        weight = torch.ones(40_000, dtype=dtype)
        weight[39_999] = value
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        with pytest.raises(RunFailed, match="not finite") as caught:
            checkpoints.save(Snapshot(3, {"model.safetensors": {"fine": torch.ones(2), "layer.weight": weight}}))
        assert "layer.weight" in caught.value.where
        assert names(tmp_path / "checkpoints") == []

    def test_from_a_thread_the_refusal_comes_with_the_next_question(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        checkpoints.save(Snapshot(1, {"model.safetensors": {"w": torch.tensor([math.nan])}}), background=True)
        with pytest.raises(RunFailed, match="not finite"):
            checkpoints.wait()
        checkpoints.save(snapshot(2), background=True)
        assert [checkpoint.step for checkpoint in checkpoints.wait()] == [2]

    def test_optimizer_state_may_be_anything(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        checkpoints.save(Snapshot(1, {"optimizer.safetensors": {"x": torch.tensor([math.inf])}}))
        assert len(checkpoints.finished()) == 1

    @pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "manifest.json", "a\0b", "a" * 300])
    def test_names_that_are_no_plain_files(self, tmp_path: Path, name: str) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        with pytest.raises(RunFailed, match="cannot be the name"):
            checkpoints.save(Snapshot(1, {}, {name: 1}))
        assert names(tmp_path / "checkpoints") == []

    @pytest.mark.parametrize("value", [math.nan, {1, 2}, object()])
    def test_documents_that_are_not_json(self, tmp_path: Path, value: object) -> None:
        with pytest.raises(RunFailed, match="cannot be saved") as caught:
            Checkpoints(tmp_path / "checkpoints").save(Snapshot(1, {}, {"state.json": {"a": value}}))
        assert caught.value.where == "state.json"


class Failing(FileSystem):
    """Fail one call, or all from one on, and count them; nothing is really synced, for speed."""

    def __init__(self, at: int = -1, code: int = errno.EIO, *, lasting: bool = False, room: int = 10**12) -> None:
        self.at, self.code, self.lasting, self.room = at, code, lasting, room
        self.count = 0

    def _step(self) -> None:
        self.count += 1
        if self.count == self.at or (self.lasting and 0 < self.at <= self.count):
            raise OSError(self.code, os.strerror(self.code))

    def mkdir(self, path: Path) -> None:
        self._step()
        super().mkdir(path)

    def create(self, path: Path) -> int:
        self._step()
        return super().create(path)

    def write(self, descriptor: int, data: memoryview) -> int:
        self._step()
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._step()

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def fsync_folder(self, path: Path) -> None:
        self._step()

    def free_bytes(self, path: Path) -> int:
        return self.room


class TestFaults:
    def calls_of_a_save(self, tmp_path: Path) -> tuple[int, int]:
        """Return how many calls two saves make, and the third."""
        files = Failing()
        checkpoints = Checkpoints(tmp_path / "count", files=files)
        checkpoints.save(snapshot(1))
        checkpoints.save(snapshot(2))
        before = files.count
        checkpoints.save(snapshot(3))
        return before, files.count - before

    def save_and_wait(self, checkpoints: Checkpoints, background: bool) -> None:
        checkpoints.save(snapshot(3), background=background)
        checkpoints.wait()

    @pytest.mark.parametrize(
        ("code", "background"),
        [(errno.ENOSPC, False), (errno.ENOSPC, True), (errno.EROFS, False), (errno.EMFILE, False)],
    )
    def test_every_call_may_fail_and_older_checkpoints_stay(self, tmp_path: Path, code: int, background: bool) -> None:
        before, calls = self.calls_of_a_save(tmp_path)
        assert calls > 8
        for number in range(1, calls):
            folder = tmp_path / f"{number}"
            files = Failing(before + number, code)
            checkpoints = Checkpoints(folder, files=files)
            checkpoints.save(snapshot(1))
            checkpoints.save(snapshot(2))
            assert [checkpoint.step for checkpoint in checkpoints.finished()] == [1, 2]
            with pytest.raises(ResourceError, match="cannot be written") as caught:
                self.save_and_wait(checkpoints, background)
            assert "needed: " in caught.value.why
            assert "free: " in caught.value.why
            assert caught.value.do
            found = Checkpoints(folder).newest_valid()
            assert found is not None
            assert found.step == 2
            assert names(folder) == ["checkpoint-1", "checkpoint-2"]
            checkpoints.save(snapshot(3))
            assert [checkpoint.step for checkpoint in checkpoints.finished()] == [3]

    def test_one_failed_fsync_is_tried_again_with_new_files(self, tmp_path: Path) -> None:
        before, calls = self.calls_of_a_save(tmp_path)
        for number in range(1, calls):
            checkpoints = Checkpoints(tmp_path / f"{number}", files=Failing(before + number))
            for step in (1, 2, 3):
                checkpoints.save(snapshot(step))
            # Old checkpoints are removed behind the caller's back; the next reader shall find that done.
            assert [checkpoint.step for checkpoint in checkpoints.wait()] == [1, 2, 3]
            found = Checkpoints(tmp_path / f"{number}").newest_valid()
            assert found is not None
            assert found.step == 3

    def test_a_broken_disk_ends_the_run_with_the_last_checkpoint_whole(self, tmp_path: Path) -> None:
        before, calls = self.calls_of_a_save(tmp_path)
        for number in range(1, calls):
            folder = tmp_path / f"{number}"
            checkpoints = Checkpoints(folder, files=Failing(before + number, lasting=True))
            checkpoints.save(snapshot(1))
            checkpoints.save(snapshot(2))
            with pytest.raises(ResourceError, match="cannot be written"):
                checkpoints.save(snapshot(3))
            found = Checkpoints(folder).newest_valid()
            assert found is not None
            assert found.step >= 2

    @pytest.mark.parametrize("most", [1, 7, 100])
    def test_short_writes_are_completed(self, tmp_path: Path, most: int) -> None:
        class Short(FileSystem):
            def write(self, descriptor: int, data: memoryview) -> int:
                return super().write(descriptor, data[:most])

        checkpoints = Checkpoints(tmp_path / "checkpoints", files=Short())
        checkpoints.save(snapshot(1))
        checkpoints.finished()[0].verify()

    def test_a_write_of_nothing_is_a_failure(self, tmp_path: Path) -> None:
        class Stuck(FileSystem):
            def write(self, descriptor: int, data: memoryview) -> int:
                return 0

        with pytest.raises(ResourceError, match="wrote nothing"):
            Checkpoints(tmp_path / "checkpoints", files=Stuck()).save(snapshot(1))

    def test_too_little_room_is_said_before_the_first_save(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints", files=Failing(room=10_000_000))
        with pytest.raises(ResourceError, match="no room") as caught:
            checkpoints.save(snapshot(1, size=1_000_000))
        assert caught.value.why == "needed: 16.0 MB (up to 4 checkpoints of 4.0 MB at a time), free: 10.0 MB"
        assert names(tmp_path / "checkpoints") == []

    def test_a_missing_parent_folder_is_a_resource_error(self, tmp_path: Path) -> None:
        with pytest.raises(ResourceError):
            Checkpoints(tmp_path / "gone" / "checkpoints").save(snapshot(1))

    def test_a_second_save_waits_for_the_first(self, tmp_path: Path) -> None:
        class Slow(FileSystem):
            def rename(self, source: Path, target: Path) -> None:
                time.sleep(0.05)
                super().rename(source, target)

        threads = threading.active_count()
        checkpoints = Checkpoints(tmp_path / "checkpoints", files=Slow())
        checkpoints.save(snapshot(1), background=True)
        assert checkpoints.finished() == []
        checkpoints.save(snapshot(2), background=True)
        assert [checkpoint.step for checkpoint in checkpoints.finished()] == [1]
        checkpoints.close()
        assert [checkpoint.step for checkpoint in checkpoints.finished()] == [2]
        assert threading.active_count() == threads


def _swap(path: Path) -> None:
    shutil.copy(path.parent / "checkpoint-1" / "model.safetensors", path / "model.safetensors")


def _zero(path: Path) -> None:
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:200] + bytes(4096) + content[4296:])


def _edit(path: Path) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"epoch": 0', '"epoch": 1'))


def _link(path: Path) -> None:
    (path / "state.json").rename(path.parent / "elsewhere.json")
    (path / "state.json").symlink_to(path.parent / "elsewhere.json")


def _pipe(path: Path) -> None:
    (path / "state.json").unlink()
    os.mkfifo(path / "state.json")


def _pipe_as_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()
    os.mkfifo(path / "manifest.json")


def _folder(path: Path) -> None:
    (path / "state.json").unlink()
    (path / "state.json").mkdir()


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


def _rename(path: Path) -> None:
    shutil.rmtree(path)
    shutil.copytree(path.parent / "checkpoint-1", path)


def _huge_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"[" * (4 * 2**20 + 1))


def _deep_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"[" * 100_000)


def _unlink(path: Path) -> None:
    (path / "model.safetensors").unlink()


def _manifest_of(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    """Return a damage that writes a manifest whose own hash is right, as an attacker would."""

    def damage(path: Path) -> None:
        from trainkit.storage.manifest import _render

        content = json.loads((path / "manifest.json").read_text())["content"]
        change(content)
        (path / "manifest.json").write_bytes(_render(content))

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "another step's file": _swap,
    "zeroed block": _zero,
    "edited manifest": _edit,
    "link": _link,
    "pipe": _pipe,
    "pipe as manifest": _pipe_as_manifest,
    "folder as file": _folder,
    "empty folder": _empty,
    "file in its place": _file,
    "another step's folder": _rename,
    "huge manifest": _huge_manifest,
    "deep manifest": _deep_manifest,
    "missing file": _unlink,
    "file outside": _manifest_of(
        lambda c: c.update(files={"../checkpoint-1/state.json": {"size": 1, "xxh3_128": "0"}})
    ),
    "file with NUL": _manifest_of(lambda c: c.update(files={"a\0b": {"size": 1, "xxh3_128": "0"}})),
    "size that is no number": _manifest_of(lambda c: c.update(files={"state.json": {"size": "1", "xxh3_128": "0"}})),
    "negative step": _manifest_of(lambda c: c.update(step=-1)),
    "step that is no number": _manifest_of(lambda c: c.update(step=True)),
    "other format": _manifest_of(lambda c: c.update(format=2)),
    "no files": _manifest_of(lambda c: c.pop("files")),
    "list of files": _manifest_of(lambda c: c.update(files=[1])),
    "facts that refer to tensors": _manifest_of(lambda c: c.update(facts={"a": {"$tensor": "x"}})),
    "facts with an unknown tag": _manifest_of(lambda c: c.update(facts={"$import": "os"})),
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
    def test_it_is_set_aside_and_the_one_before_used(self, tmp_path: Path, damage: Callable[[Path], None]) -> None:
        folder = tmp_path / "checkpoints"
        checkpoints = Checkpoints(folder)
        for step in (1, 2):
            checkpoints.save(snapshot(step, size=3000))
        (folder / ".tmp-3-99-0").mkdir()
        (folder / ".tmp-3-99-0" / "model.safetensors").write_bytes(b"half")
        damage(folder / "checkpoint-2")
        lines: list[str] = []
        looked = Checkpoints(folder, read_only=True).newest_valid(lines.append)
        assert looked is not None
        assert looked.step == 1
        assert (folder / "checkpoint-2").exists()
        found = Checkpoints(folder).newest_valid(lines.append)
        assert found is not None
        assert found.step == 1
        assert len(lines) == 2
        assert lines[1].startswith("checkpoint-2 is damaged")
        assert "\n" not in lines[1]
        assert lines[1].endswith("it is now checkpoint-2.corrupt")
        assert {"checkpoint-1", "checkpoint-2.corrupt"} <= set(names(folder))
        assert not [name for name in names(folder) if name.startswith(".tmp-")]

    def test_every_cut_and_a_thousand_flipped_bits_are_seen(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        checkpoints.save(snapshot(1, size=3000))
        (whole,) = checkpoints.finished()
        draw = random.Random(0)
        contents = {path: path.read_bytes() for path in sorted(whole.path.iterdir())}
        seen = 0
        for path, content in contents.items():
            for end in range(0, len(content), 512):
                os.truncate(path, end)
                with pytest.raises(CheckpointError):
                    Checkpoint(whole.path).verify()
                path.write_bytes(content)
                seen += 1
        for path in draw.choices(list(contents), weights=[1, 2, 1], k=1000):
            place = draw.randrange(len(contents[path]))
            byte = contents[path][place : place + 1]
            with path.open("r+b") as file:
                os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << draw.randrange(8)]), place)
                with pytest.raises(CheckpointError):
                    Checkpoint(whole.path).verify()
                os.pwrite(file.fileno(), byte, place)
            seen += 1
        assert seen > 1020
        Checkpoint(whole.path).verify()

    def test_names_of_corrupt_folders_do_not_meet(self, tmp_path: Path) -> None:
        folder = tmp_path / "checkpoints"
        for _ in range(3):
            Checkpoints(folder).save(snapshot(5))
            _unlink(folder / "checkpoint-5")
            assert Checkpoints(folder).newest_valid() is None
        assert names(folder) == ["checkpoint-5.corrupt", "checkpoint-5.corrupt-2", "checkpoint-5.corrupt-3"]

    def test_ten_thousand_old_folders_are_passed_over(self, tmp_path: Path) -> None:
        folder = tmp_path / "checkpoints"
        Checkpoints(folder).save(snapshot(20_000))
        for step in range(10_000):
            (folder / f"checkpoint-{step}").mkdir()
        started = time.process_time()
        found = Checkpoints(folder).newest_valid()
        assert time.process_time() - started < 2
        assert found is not None
        assert found.step == 20_000


class TestBest:
    def test_it_is_named_durably_and_never_removed(self, tmp_path: Path) -> None:
        folder = tmp_path / "checkpoints"
        checkpoints = Checkpoints(folder)
        for step in range(1, 7):
            checkpoints.save(snapshot(step), background=step % 2 == 0)
            if step in (2, 4):
                checkpoints.mark_best([Ranked(step, 1 / step)])
        checkpoints.wait()
        assert names(folder) == ["best.json", "checkpoint-4", "checkpoint-5", "checkpoint-6"]
        assert json.loads((folder / "best.json").read_text()) == {
            "step": 4,
            "value": 0.25,
            "checkpoint": "checkpoint-4",
            "ranking": [{"step": 4, "value": 0.25, "checkpoint": "checkpoint-4"}],
        }
        best = Checkpoints(folder).best()
        assert best is not None
        assert best.step == 4

    def test_a_mark_waits_for_its_checkpoint(self, tmp_path: Path) -> None:
        released = threading.Event()

        class Held(FileSystem):
            def rename(self, source: Path, target: Path) -> None:
                if target.name == "checkpoint-2":
                    assert released.wait(10)
                super().rename(source, target)

        checkpoints = Checkpoints(tmp_path / "checkpoints", files=Held())
        checkpoints.save(snapshot(1))
        checkpoints.mark_best([Ranked(1, 1.0)])
        checkpoints.save(snapshot(2), background=True)
        checkpoints.mark_best([Ranked(2, 0.5), Ranked(1, 1.0)])
        content = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
        assert content["step"] == 1
        released.set()
        best = checkpoints.best()
        assert best is not None
        assert best.step == 2

    def test_a_mark_without_a_checkpoint_changes_nothing_until_there_is_one(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        checkpoints.save(snapshot(1))
        checkpoints.mark_best([Ranked(1, 1.0)])
        checkpoints.mark_best([Ranked(2, math.inf)])
        assert checkpoints.best().step == 1  # type: ignore[union-attr]
        checkpoints.save(snapshot(2))
        assert checkpoints.best().step == 2  # type: ignore[union-attr]

    def test_no_mark_is_lost_between_the_writer_and_the_caller(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        for step in range(30):
            checkpoints.save(snapshot(step), background=True)
            time.sleep(random.Random(step).random() * 0.004)
            checkpoints.mark_best([Ranked(step, 0.0)])
            checkpoints.wait()
            best = checkpoints.best()
            assert best is not None
            assert best.step == step

    @pytest.mark.parametrize("content", [b"", b"{}", b'{"step": "1"}', b'{"step": -1}', b"[" * 5000, b"\xff"])
    def test_a_damaged_record_is_an_error_and_set_aside_on_resume(self, tmp_path: Path, content: bytes) -> None:
        folder = tmp_path / "checkpoints"
        checkpoints = Checkpoints(folder)
        checkpoints.save(snapshot(1))
        (folder / "best.json").write_bytes(content)
        with pytest.raises(CheckpointError, match="record of the best"):
            checkpoints.best()
        lines: list[str] = []
        assert Checkpoints(folder).newest_valid(lines.append) is not None
        assert len(lines) == 1
        assert "best.json.corrupt" in names(folder)
        assert Checkpoints(folder).best() is None

    def test_a_damaged_best_checkpoint_is_an_error(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        checkpoints.save(snapshot(1))
        checkpoints.mark_best([Ranked(1, 0.0)])
        _unlink(tmp_path / "checkpoints" / "checkpoint-1")
        with pytest.raises(CheckpointError):
            checkpoints.best()

    def test_several_stay_in_their_order_until_better_ones_come(self, tmp_path: Path) -> None:
        folder = tmp_path / "checkpoints"
        checkpoints = Checkpoints(folder, keep_best=2)
        ranking: tuple[Ranked, ...] = ()
        for step, value in enumerate([3.0, 1.0, 5.0, 2.0, 4.0, 4.0], 1):
            checkpoints.save(snapshot(step), background=step % 2 == 0)
            ranking = ranked(ranking, Ranked(step, value), 2, "min")
            checkpoints.mark_best(ranking)
        checkpoints.close()
        assert names(folder) == [
            "best.json", "checkpoint-2", "checkpoint-4", "checkpoint-5", "checkpoint-6",
        ]  # fmt: skip
        assert bestrecord.read(folder / "best.json") == (Ranked(2, 1.0), Ranked(4, 2.0))
        best = Checkpoints(folder, read_only=True).best()
        assert best is not None
        assert best.step == 2

    def test_a_damaged_best_one_leaves_the_name_to_the_next(self, tmp_path: Path) -> None:
        folder = tmp_path / "checkpoints"
        checkpoints = Checkpoints(folder, keep_best=2)
        for step in (1, 2):
            checkpoints.save(snapshot(step))
        checkpoints.mark_best([Ranked(2, 0.5), Ranked(1, 1.0)])
        checkpoints.close()
        _unlink(folder / "checkpoint-2")
        lines: list[str] = []
        resumed = Checkpoints(folder, keep_best=2)
        found = resumed.newest_valid(lines.append)
        assert found is not None
        assert found.step == 1
        assert lines[1:] == ["checkpoint-2 was among the best: best.json names checkpoint-1 first now"]
        best = resumed.best()
        assert best is not None
        assert best.step == 1
        resumed.mark_best([Ranked(2, 0.5), Ranked(1, 1.0)])
        assert bestrecord.read(folder / "best.json") == (Ranked(1, 1.0),)

    def test_a_kill_between_the_write_and_the_removal_is_made_good(self, tmp_path: Path) -> None:
        class Killed(FileSystem):
            def rename(self, source: Path, target: Path) -> None:
                if "removed-" in target.name:
                    raise KeyboardInterrupt
                super().rename(source, target)

        folder = tmp_path / "checkpoints"
        checkpoints = Checkpoints(folder, keep_best=2)
        for step, ranking in ((1, [Ranked(1, 1.0)]), (2, [Ranked(1, 1.0), Ranked(2, 2.0)]), (3, [])):
            checkpoints.save(snapshot(step))
            checkpoints.mark_best(ranking)
        checkpoints.close()
        dying = Checkpoints(folder, keep_best=2, files=Killed())
        dying.newest_valid()
        dying._write(snapshot(4), {})
        dying.mark_best([Ranked(4, 0.5), Ranked(1, 1.0)])
        with pytest.raises(KeyboardInterrupt):
            dying._retain()
        assert len(names(folder)) == 5
        resumed = Checkpoints(folder, keep_best=2)
        resumed.newest_valid()
        resumed.save(snapshot(5))
        resumed.close()
        assert names(folder) == ["best.json", "checkpoint-1", "checkpoint-4", "checkpoint-5"]


class TestRetention:
    def test_ten_thousand_histories(self) -> None:
        draw = random.Random(20)
        for _ in range(10_000):
            keep = draw.randrange(0, 6)
            held: set[int] = set()
            most = draw.randrange(1, 4)
            best: list[int] = []
            step = 0
            for _ in range(draw.randrange(1, 12)):
                step += draw.randrange(1, 5)
                held.add(step)
                if draw.random() < 0.4:
                    best = draw.sample(sorted(held), min(most, len(held)))
                if draw.random() < 0.2 and len(held) > 1:
                    # A checkpoint turns out to be damaged.
                    held.discard(draw.choice(sorted(held)))
                stays = retained(held, best, keep)
                newest = sorted(held, reverse=True)[: max(keep, 2)]
                assert stays <= held
                assert stays >= set(newest)
                assert held & set(best) <= stays
                assert len(stays) <= max(keep, 2) + most
                assert retained(stays, best, keep) == stays
                held = stays

    def test_it_follows_the_commit(self, tmp_path: Path) -> None:
        seen: list[list[str]] = []

        class Watching(FileSystem):
            def rename(self, source: Path, target: Path) -> None:
                if target.name.startswith("checkpoint-"):
                    seen.append([name for name in names(target.parent) if name.startswith("checkpoint-")])
                super().rename(source, target)

        checkpoints = Checkpoints(tmp_path / "checkpoints", files=Watching())
        for step in (1, 2, 3, 4):
            checkpoints.save(snapshot(step))
        checkpoints.close()
        assert seen[-1] == ["checkpoint-2", "checkpoint-3"]
        assert names(tmp_path / "checkpoints") == ["checkpoint-3", "checkpoint-4"]

    def test_a_damaged_one_does_not_count_as_one_to_keep(self, tmp_path: Path) -> None:
        folder = tmp_path / "checkpoints"
        checkpoints = Checkpoints(folder, keep=3)
        for step in (1, 2, 3):
            checkpoints.save(snapshot(step))
        lines: list[str] = []
        resumed = Checkpoints(folder, keep=2)
        assert resumed.newest_valid(lines.append) is not None
        _unlink(folder / "checkpoint-2")
        resumed.save(snapshot(4))
        resumed.close()
        assert names(folder) == ["checkpoint-3", "checkpoint-4"]
        _unlink(folder / "checkpoint-3")
        again = Checkpoints(folder, keep=3)
        assert again.newest_valid(lines.append) is not None
        again.save(snapshot(5))
        again.close()
        assert names(folder) == ["checkpoint-3.corrupt", "checkpoint-4", "checkpoint-5"]
        assert len(lines) == 1


def test_a_hugging_face_model_reads_our_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    weight: Tensor = torch.randn(4, 3)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(Snapshot(1, {"model.safetensors": {"a.weight": weight}}, {"config.json": {"model_type": "mlp"}}))
    path = checkpoints.finished()[0].path
    assert torch.equal(load_file(path / "model.safetensors")["a.weight"], weight)
    assert json.loads((path / "config.json").read_text()) == {"model_type": "mlp"}
