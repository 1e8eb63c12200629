"""Config: layers, origins, units of the four routes a setting can come by, and refusals."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from trainkit.config import Config, Value, default_layer, layer_of, merged
from trainkit.errors import UsageError
from trainkit.settings import check_settings
from trainkit.sources import environment_layer, override_layer, parse_value, read_file
from trainkit.tomltext import to_toml


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_later_layers_win_and_every_value_keeps_its_origin(tmp_path: Path) -> None:
    file = write(tmp_path / "run.toml", 'seed = 3\n\n[optimizer]\nuse = "adamw"\nlr = 0.5\n')
    config = merged(
        [
            default_layer(),
            read_file(file),
            environment_layer({"TRAINKIT_OPTIMIZER__LR": "0.25", "PATH": "/bin"}),
            override_layer(["optimizer.lr=0.125"]),
        ]
    )
    assert config["optimizer.lr"] == 0.125
    assert [v.origin for v in config.history["optimizer.lr"]] == [
        "run.toml:5",
        "$TRAINKIT_OPTIMIZER__LR",
        "--set optimizer.lr",
    ]
    assert config.origin("seed") == "run.toml:1"
    assert config.origin("optimizer.use") == "run.toml:4"


def test_another_component_drops_the_options_given_to_the_one_before() -> None:
    plan = layer_of({"optimizer": {"use": "adamw", "lr": 1e-4, "weight_decay": 0.1}}, "strategy phase1")
    config = merged([default_layer(), plan, layer_of({"optimizer": "lion"}, "--optimizer")])
    assert config.options("optimizer") == {}
    config = merged([default_layer(), plan, layer_of({"optimizer.lr": 3e-4}, "--set")])
    assert config.options("optimizer") == {"lr": 3e-4, "weight_decay": 0.1}


def test_callbacks_add_up_and_other_lists_replace() -> None:
    layers = [default_layer(), layer_of({"callback": ["early-stopping"], "metric": ["a", "b"]}, "strategy")]
    assert merged(layers).listed("callback") == ["tensorboard", "early-stopping"]
    changed = merged([*layers, layer_of({"callback": ["no:tensorboard", "ema"], "metric": ["c"]}, "flag")])
    assert changed.listed("callback") == ["early-stopping", "ema"]
    assert changed.listed("metric") == ["c"]
    assert merged([*layers, layer_of({"metric": ["no:a"]}, "flag")]).listed("metric") == ["b"]
    assert merged([*layers, layer_of({"metric": "none"}, "flag")]).listed("metric") == []
    assert merged([*layers, layer_of({"callback": "none"}, "flag")]).listed("callback") == []
    assert merged([*layers, layer_of({"callback": ["none", "ema"]}, "flag")]).listed("callback") == ["ema"]


def test_taking_away_what_is_not_there_is_refused() -> None:
    config = merged([default_layer(), layer_of({"callback": ["no:tensorbord"]}, "--callback")])
    with pytest.raises(UsageError, match="no 'tensorbord' to take away"):
        config.check_lists()


def test_what_is_taken_away_takes_its_options_along() -> None:
    plan = layer_of({"callback": ["early-stopping"], "callback.early-stopping.patience": 15}, "strategy phase1")
    config = merged([default_layer(), plan, layer_of({"callback": ["no:early-stopping"]}, "--callback")])
    config.check_lists()
    assert "callback.early-stopping.patience" not in config
    still = layer_of({"callback": ["no:early-stopping"], "callback.early-stopping.patience": 3}, "file")
    with pytest.raises(UsageError, match="no callback 'early-stopping'"):
        merged([default_layer(), plan, still]).check_lists()


def test_tables_of_lists_carry_options() -> None:
    config = merged([layer_of({"metric": [{"use": "element-f1", "level": "key"}, "token-accuracy"]}, "file")])
    assert config.listed("metric") == ["element-f1", "token-accuracy"]
    assert config.options("metric", "element-f1") == {"level": "key"}


def test_options_of_an_unlisted_component_are_refused() -> None:
    config = merged([default_layer(), layer_of({"metric.element-f1.level": "key"}, "--set metric.element-f1.level")])
    with pytest.raises(UsageError, match="no metric 'element-f1'"):
        config.check_lists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-4", 3e-4),
        ("true", True),
        ("none", None),
        ("phase1", "phase1"),
        ('"7"', "7"),
        ("[1, 2]", [1, 2]),
        ("", ""),
    ],
)
def test_override_values_are_toml_or_else_text(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"loop.batchsize": 4}, ["unknown setting 'loop.batchsize'", "did you mean 'loop.batch_size'", "here"]),
        ({"sed": 4}, ["unknown setting 'sed'", "did you mean 'seed'"]),
        ({"loop.batch_size": 0}, ["loop.batch_size", "greater than 0", "got 0", "here"]),
        ({"loop.batch_size": "many"}, ["loop.batch_size", "valid integer", "'many'"]),
        ({"precision": "fp8"}, ["precision", "'auto', 'fp32', 'bf16' or 'fp16'"]),
        ({"loop.nan_policy": "ignore"}, ["loop.nan_policy", "'stop' or 'skip'"]),
        ({"checkpoint.keep": 1}, ["checkpoint.keep", "greater than or equal to 2"]),
    ],
)
def test_wrong_settings_name_place_value_and_remedy(settings: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        check_settings(merged([default_layer(), layer_of(settings, "here")]))
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text", ["seed = ", "seed = 1\nseed = 2\n", "a = " + "[" * 5000, "x = 1e999999\ny = {", "\x00"]
)
def test_broken_files_are_refused_with_their_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"not valid TOML|cannot be read"):
        read_file(write(tmp_path / "broken.toml", text))


def test_missing_and_oversized_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no config file"):
        read_file(tmp_path / "absent.toml")
    with pytest.raises(UsageError, match="larger than"):
        read_file(write(tmp_path / "big.toml", "#" * 1_000_001))


def test_resolved_toml_runs_again() -> None:
    config = merged(
        [
            default_layer(),
            layer_of(
                {"metric": [{"use": "element-f1", "level": "key"}, "token-accuracy"], "optimizer.lr": 1e-4}, "file"
            ),
            layer_of({"stages.easy.epochs": 3, "loop.clip": None, "data": 'a "b"\\c'}, "file"),
        ]
    )
    text = to_toml({key: values[-1] for key, values in config.history.items()})
    again = merged([layer_of(tomllib.loads(text), "again")])
    expected = {key: config[key] for key in config if config[key] is not None}
    assert {key: again[key] for key in again} == expected


def test_document_round_trip() -> None:
    config = Config({"seed": [Value(0, "default"), Value(3, "--seed", "why not")]})
    assert Config.from_document(config.document()).history == config.history
