"""The documents of a run directory that say what was asked, what was planned and with which parts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from .config import Config, Layer
from .draft import Draft
from .errors import CheckpointError, printable
from .kinds import ONE_KINDS
from .plan import Plan
from .report import SKIPPED, environment
from .request import Request
from .rundir import RunDirectory
from .tomltext import to_toml


def write_documents(directory: RunDirectory, draft: Draft, request: Request) -> None:
    """Write the documents of a new run; plan.json comes last, and makes the directory one that can be resumed."""
    directory.write_text("config.toml", to_toml(asked_for(draft.config, request)))
    write_resolved(directory, draft.config)
    directory.write_json("components.json", components_of(draft))
    directory.write_json("environment.json", environment())
    if skipped := draft.splits.skipped:
        directory.write_text(SKIPPED, "".join(f"{line}\n" for line in map(_skipped_line, skipped)))
    directory.write_json("plan.json", plan_document(draft))
    directory.status("running", reason="", step=0)


def write_resolved(directory: RunDirectory, config: Config) -> None:
    """Write the settings in force, and where each comes from."""
    directory.write_text("resolved.toml", to_toml({key: values[-1] for key, values in config.history.items()}))
    directory.write_json("resolved.json", config.document())


def read_documents(directory: RunDirectory) -> tuple[Config, Plan]:
    """Return config and plan of a run.

    Raises:
        CheckpointError: the documents are missing, damaged, or not what `write_documents` wrote.
    """
    with _understood(directory, "resolved.json") as resolved:
        config = Config.from_document(resolved)
        if missing := [f"{kind}.use" for kind in ONE_KINDS if not config.history.get(f"{kind}.use")]:
            raise ValueError(f"it lacks {', '.join(missing)}")
    with _understood(directory, "plan.json") as planned:
        plan = Plan.model_validate(planned["plan"])
    return config, plan


def read_versions(directory: RunDirectory) -> dict[tuple[str, str], str]:
    """Return the versions of the components that a run was started with, by kind and name."""
    with _understood(directory, "components.json") as rows:
        versions = {(row["kind"], row["name"]): str(row["version"]) for row in rows}
        if not versions:
            raise ValueError("it names no component")
    return versions


@contextlib.contextmanager
def _understood(directory: RunDirectory, name: str) -> Iterator[Any]:
    """Yield a document of a run directory; raise CheckpointError if it is not what it should be."""
    document = directory.read_json(name)
    try:
        yield document
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            "a file of the run directory is damaged",
            where=str(directory.path / name),
            why=printable(str(error)).splitlines()[0],
            do="put it back from a copy, or start a new run",
        ) from error


def _skipped_line(sample: tuple[str, str]) -> str:
    place, reason = sample
    return json.dumps({"place": place, "reason": reason})


def asked_for(config: Config, request: Request) -> Layer:
    """Return what the user said and what came into force, as one layer: the run again, by defaults and strategy."""
    asked: Layer = {}
    for layer in request.layers:
        asked |= {config.in_full(key): value for key, value in layer.items()}
    # An option of a component that a higher layer replaced says nothing about the one that came in its place.
    return {key: v for key, v in asked.items() if key.partition(".")[0] not in ONE_KINDS or key in config}


def components_of(draft: Draft) -> list[dict[str, str]]:
    """Return kind, name, distribution and version of every component of a draft; of one inside another also its key."""
    rows = []
    for outer in draft.outer_parts():
        for component in (part.component for part in (outer, *outer.inner())):
            row = {name: getattr(component, name) for name in ("kind", "name", "distribution", "version")}
            rows.append(row if component is outer.component else row | {"inside": component.place})
    return rows


def plan_document(draft: Draft) -> dict[str, Any]:
    """Return plan, situation and stage lengths as JSON."""
    return {
        "plan": draft.plan.model_dump(mode="json"),
        "situation": draft.situation.model_dump(mode="json"),
        "stages": [
            {
                **planned.stage.model_dump(mode="json"),
                "length": planned.length.model_dump(mode="json"),
                "first_step": planned.first_step,
                "last_step": planned.last_step,
            }
            for planned in draft.stages
        ],
        "data": {
            "source": draft.splits.source,
            "fingerprint": draft.splits.fingerprint,
            "samples": {split: len(dataset) for split, dataset in draft.splits.items()},
            "warnings": list(draft.splits.warnings),
            "skipped": len(draft.splits.skipped),
        },
        "warnings": list(draft.warnings),
    }
