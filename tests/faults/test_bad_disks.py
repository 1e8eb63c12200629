"""Disks that are full, read-only or damaged: exit codes 6 and 7, and whatever was saved stays whole."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trainkit.api import Request, resume, start
from trainkit.checkpoint import Checkpoints
from trainkit.errors import ResourceError
from trainkit.storage.filesystem import FileSystem
from trainkit.testing import tiny
from trainkit.testing.tiny import tiny_request

TINY = (
    "--task", f"{tiny.__file__}:TinyTask", "--strategy", "baseline", "--epochs", "4", "--callback", "no:tensorboard",
    "--set", "checkpoint.every_steps=1", "--set", "checkpoint.keep=3",
)  # fmt: skip


def newest(directory: Path | str) -> int:
    """Return the step of the newest valid checkpoint."""
    found = Checkpoints(Path(directory) / "checkpoints", read_only=True).newest_valid()
    assert found is not None
    return found.step


def status(directory: Path | str) -> dict[str, Any]:
    """Return the status file."""
    found: dict[str, Any] = json.loads((Path(directory) / "status.json").read_text())
    return found


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("background", [True, False])
def test_a_disk_that_refuses_in_the_middle_of_a_run(tmp_path, monkeypatch, number, background):
    out = tmp_path / "run"
    settings = {"out": str(out), "checkpoint.every_steps": 1, "checkpoint.background": background}
    asked = tiny_request(settings)
    real, files = FileSystem.create, []

    def create(self: FileSystem, path: Path) -> int:
        files.append(path)
        if sum(f.name == "model.safetensors" for f in files) > 4:
            raise OSError(number, os.strerror(number), str(path))
        return real(self, path)

    with monkeypatch.context() as patched:
        patched.setattr(FileSystem, "create", create)
        with pytest.raises(ResourceError) as refused:
            start(asked)
    assert refused.value.exit_code == 7
    assert "checkpoint" in refused.value.where
    assert os.strerror(number) in refused.value.why
    assert "--resume" in refused.value.do
    assert newest(out) == 4
    assert not list((out / "checkpoints").glob("*.corrupt*"))
    # There is room again.
    again = resume(out, Request((), asked.live, asked.registry, report=asked.report))
    assert (again.status, again.summary["steps"]) == ("done", 12)
    alone = start(tiny_request(settings | {"out": str(tmp_path / "alone")}))
    for name, weight in alone.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])


def test_a_disk_that_refuses_the_rows(cli, monkeypatch):
    from trainkit.storage import metricsfile

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(metricsfile, "write_all", refuse)
    done = cli("run", *TINY, "--out", "mine")
    assert done.code == 7
    assert "where: mine/metrics.jsonl" in done.err
    assert "No space left on device" in done.err
    assert status("mine")["state"] == "failed"


def in_namespace(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script in name spaces of its own, in which file systems may be mounted."""
    shell = shutil.which("unshare")
    probe = subprocess.run(["unshare", "-Urm", "true"], capture_output=True) if shell else None
    if probe is None or probe.returncode != 0:
        pytest.skip("needs unshare(1) and the right to make user name spaces")
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-ec", script], cwd=folder, capture_output=True, text=True, timeout=120
    )


def command(*arguments: str) -> str:
    """Return a shell command line that calls trainkit."""
    import shlex

    return shlex.join([sys.executable, "-m", "trainkit_cli", *arguments])


def test_a_disk_that_is_full_and_one_that_is_read_only(tmp_path):
    """All in one script: processes are what takes the time."""
    script = f"""
        mkdir full readonly
        mount -t tmpfs -o size=96k none full
        set +e
        {command("run", *TINY, "--set", "task.width=32", "--out", "full/run")} >out 2>err
        echo "full: $?"; cat err; ls full/run/checkpoints
        mount -t tmpfs -o size=1m,ro none readonly
        {command("run", *TINY, "--out", "readonly/run")} >out 2>err
        echo "read-only: $?"; cat err
    """
    done = in_namespace(script, tmp_path)
    assert done.returncode == 0, done.stderr
    full, readonly = done.stdout.split("read-only: ")
    assert full.startswith("full: 7"), done.stdout
    assert "No space left on device" in full or "the disk has no room for the run's checkpoints" in full
    assert "free:" in full
    assert ".corrupt" not in full
    assert readonly.startswith(
        "7\nerror: a file cannot be written\n  where: readonly/run\n  why:   Read-only file system"
    )
    assert "Traceback" not in done.stdout


def test_a_limit_on_the_size_of_files_never_leaves_a_short_one(cli):
    assert cli("run", *TINY[:-4], "--out", "alone", "--set", "task.width=48").code == 0
    size = max(path.stat().st_size for path in Path("alone/checkpoints").rglob("optimizer.safetensors"))
    child = os.fork()
    if child == 0:
        code = 99
        try:
            import signal

            from trainkit_cli.main import main

            os.dup2(os.open("err", os.O_WRONLY | os.O_CREAT, 0o600), 2)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, resource.RLIM_INFINITY))
            main(["run", *TINY, "--set", "task.width=48", "--out", "mine", "-q"])
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    said = Path("err").read_text()
    assert "File too large" in said
    assert "ulimit -f" in said
    assert not any(Path("mine/checkpoints").glob("checkpoint-*"))
    again = cli("run", "--resume", "mine")
    assert again.code == 0, again.err
    results = [json.loads(Path(name, "results.json").read_text())["results"] for name in ("alone", "mine")]
    assert results[0] == results[1]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": lambda folder: flip(folder / "model.safetensors"),
    "cut": lambda folder: (folder / "optimizer.safetensors").write_bytes(b""),
    "gone": lambda folder: (folder / "state.json").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "other state": lambda folder: (folder / "state.json").write_text("{}"),
}


def stopped(cli) -> None:
    """Leave a run behind that failed at its sixth step."""
    Path("parts.py").write_text(
        "from trainkit import hookimpl\n"
        "class Fails:\n"
        "    @hookimpl\n"
        "    def on_step(self, run):\n"
        "        assert run.moment.step != 6 or run.resumed\n"
    )
    assert cli("run", *TINY, "--callback", "./parts.py:Fails", "--out", "mine").code == 1
    assert newest("mine") == 5


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_used(cli, damage):
    assert cli("run", *TINY, "--out", "alone").code == 0
    stopped(cli)
    DAMAGE[damage](Path("mine/checkpoints/checkpoint-5"))
    done = cli("run", "--resume", "mine")
    assert done.code == 0, done.err
    assert "checkpoint-5 is damaged and not used" in done.err
    assert "it is now checkpoint-5.corrupt" in done.err
    assert "resumed at step 4" in done.err
    assert Path("mine/checkpoints/checkpoint-5.corrupt").is_dir()
    assert "Traceback" not in done.err
    results = [json.loads(Path(name, "results.json").read_text()) for name in ("alone", "mine")]
    assert results[0]["results"] == results[1]["results"]


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_anew_in_silence(cli):
    stopped(cli)
    rows = Path("mine/metrics.jsonl").read_bytes()
    for folder in Path("mine/checkpoints").glob("checkpoint-*"):
        flip(folder / "model.safetensors")
    for _ in range(2):
        done = cli("run", "--resume", "mine")
        assert done.code == 6
        assert "no checkpoint of this run is whole" in done.err
        assert "damaged: checkpoint-3.corrupt, checkpoint-4.corrupt, checkpoint-5.corrupt" in done.err
        assert "trainkit run mine/config.toml --out NEW_RUN_DIR" in done.err
        assert Path("mine/metrics.jsonl").read_bytes() == rows
    anew = cli("run", "mine/config.toml", "--callback", "no:./parts.py:Fails", "--out", "new")
    assert anew.code == 0, anew.err


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(cli):
    stopped(cli)
    shutil.rmtree("mine/checkpoints")
    done = cli("run", "--resume", "mine")
    assert done.code == 0
    assert "no checkpoint yet: the run begins anew" in done.err


def test_evaluating_says_what_is_damaged_and_touches_nothing(cli):
    assert cli("run", *TINY, "--out", "mine").code == 0
    best = json.loads(Path("mine/checkpoints/best.json").read_text())["checkpoint"]
    flip(Path("mine/checkpoints", best, "model.safetensors"))
    before = sorted(Path("mine").rglob("*"))
    done = cli("evaluate", "mine")
    assert done.code == 6
    assert "a checkpoint's file is damaged" in done.err
    assert "--checkpoint last" in done.err
    last = cli("evaluate", "mine", "--checkpoint", "last")
    assert last.code == 0
    assert sorted(Path("mine").rglob("*")) == before


def test_a_save_under_way_is_left_alone_by_an_evaluation(cli):
    assert cli("run", *TINY, "--out", "mine").code == 0
    saving = Path("mine/checkpoints/.tmp-checkpoint-9-1")
    saving.mkdir()
    (saving / "model.safetensors").write_bytes(b"half")
    assert cli("evaluate", "mine", "--checkpoint", "last").code == 0
    assert (saving / "model.safetensors").read_bytes() == b"half"


@pytest.mark.parametrize("name", ["plan.json", "resolved.json", "components.json", "status.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"a": 1}', b'{"a": []}', b"\xff", b"[" * 100_000])
def test_damaged_documents_are_named(cli, stopped_run, name, content):
    shutil.copytree(stopped_run, "mine")
    path = Path("mine", name)
    path.unlink() if content is None else path.write_bytes(content)
    done = cli("run", "--resume", "mine")
    if name == "status.json" and content in (b"[]", b"{}", b'{"a": 1}', b'{"a": []}'):
        # It says nothing about the run that the checkpoints do not say better.
        assert done.code == 0
        return
    assert done.code == 6, done
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err
    assert f"mine/{name}" in done.err or (name == "status.json" and "this is not a run directory" in done.err)


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a run that is neither done nor under way."""
    from trainkit_cli.main import main

    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(SystemExit):
        main(["run", *TINY, "--max-steps", "3", "-q", "--out", str(out)])
    (out / "status.json").write_text('{"state": "stopped"}')
    return out


@pytest.mark.parametrize("place", ["nowhere", "file", "folder"])
def test_what_is_no_run_directory(cli, place):
    Path("file").write_text("")
    Path("folder").mkdir()
    for arguments in (("run", "--resume", place), ("evaluate", place)):
        done = cli(*arguments)
        assert done.code == 6
        assert "this is not a run directory" in done.err
        assert f"where: {place}" in done.err
        assert list(Path("folder").iterdir()) == []


def test_a_run_directory_that_another_run_holds(cli):
    from trainkit.rundir import RunDirectory

    assert cli("run", *TINY, "--out", "mine").code == 0
    holder = RunDirectory.open(Path("mine"))
    done = cli("run", "--resume", "mine")
    assert done.code == 2
    assert "another process is using this run directory" in done.err
    assert f"process {os.getpid()} on " in done.err
    assert cli("evaluate", "mine").code == 0
    holder.close()
    assert cli("run", "--resume", "mine").code == 0


def test_a_run_directory_that_is_moved_under_a_run_goes_on_from_there(cli):
    Path("parts.py").write_text(
        "from trainkit import hookimpl\n"
        "class Moves:\n"
        "    @hookimpl\n"
        "    def on_step(self, run):\n"
        "        if run.moment.step == 3:\n"
        "            run.directory.path.rename('elsewhere')\n"
    )
    done = cli("run", *TINY, "--callback", "./parts.py:Moves", "--out", "mine")
    assert done.code == 7, done
    assert "it was moved or removed while the run wrote to it" in done.err
    assert "Traceback" not in done.err
    assert not Path("mine").exists()
    assert cli("run", "--resume", "elsewhere").code == 0
