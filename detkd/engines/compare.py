"""Several recipes on the same seeds: who gained what, at which price."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import statistics
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from detkd.config import load_config, read_yaml
from detkd.engines.families import FAMILIES
from detkd.engines.grid import Axis, grid_recipes
from detkd.engines.kept import CONFIG, describe_changes, kept_weights, other_weights
from detkd.engines.run import build_models, check_settings, run_config
from detkd.engines.tasks import task_of
from detkd.errors import ConfigError, DataError, DetkdError, one_line
from detkd.evaluation.paired import paired_difference
from detkd.files import write_json, write_text
from detkd.processes import end_with_parent
from detkd.report.comparison import comparison_markdown, comparison_table
from detkd.report.grid import grid_plot
from detkd.report.html.report import write_report
from detkd.report.reporter import SILENT, reporter, reporting
from detkd.trees import parse_json
from detkd.weights import weights_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from detkd.config import RunConfig

SCHEMA_VERSION = 1
TEACHER = "{teacher}"  # in a recipe: the weights of distill.teacher


@dataclass(frozen=True)
class Comparison:
    """Runs to make and to compare.

    Attributes:
        folder: Where the runs and the comparison are kept.
        runs: For each recipe its runs, one a seed; the first recipe is the baseline.
        seeds: The seeds.
        split: The split whose metrics are compared.
        metrics: The metrics that are compared, those of the task.
        grid: The keys whose values the recipes behind the baseline go through, if they do.
    """

    folder: Path
    runs: Mapping[str, tuple[RunConfig, ...]]
    seeds: tuple[int, ...]
    split: str
    metrics: tuple[str, ...]
    grid: tuple[Axis, ...] = ()

    @property
    def baseline(self) -> str:
        """Name of the recipe that all others are compared with."""
        return next(iter(self.runs))


def plan_comparison(
    config: Path,
    recipes: Path,
    *,
    seeds: Sequence[int],
    only: Sequence[str] = (),
    overrides: Sequence[str] = (),
    split: str | None = None,
    grid: Sequence[Axis] = (),
) -> Comparison:
    """Resolve the configuration of every run, and refuse faults before the first one starts.

    Args:
        config: Configuration of one run, see :func:`detkd.config.load_config`; its `name` is the comparison's.
        recipes: YAML of recipe names and their overrides; the first is the baseline.
        seeds: Seeds that every recipe is run with.
        only: Names of the recipes to run beside the baseline; all if empty.
        overrides: ``key=value`` for every run.
        split: The split to compare; the last one evaluated if None.
        grid: One key or two, whose values take the place of the file's recipes beside the baseline.

    Raises:
        ConfigError: With one line for each fault.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds: expected different seeds, at least one, but got {list(seeds)}.")
    base = load_config(config, overrides)
    folder = base.output / base.name
    chosen = _choose(_read_recipes(recipes), only, recipes)
    if grid:
        first = next(iter(chosen))
        kept = {name: changes for name, changes in chosen.items() if name == first or name in only}
        cells = grid_recipes(grid)
        twice = sorted(kept.keys() & cells.keys())
        if twice:
            raise ConfigError(f"--grid: expected other names than those of recipes, but {twice} are of both.")
        chosen = {**kept, **cells}
    teachers = base.distill.all_teachers if base.distill is not None else ()
    teacher = teachers[0].weights if teachers else None
    runs = {}
    for name, changes in chosen.items():
        if teacher is None and any(TEACHER in change for change in changes):
            raise ConfigError(f"{name}: expected distill.teacher.weights, which {TEACHER} stands for, but it is null.")
        # Quoted, as YAML reads what stands behind the sign: a path may look like a number, or have a # in it.
        own = [change.replace(TEACHER, json.dumps(str(teacher))) for change in changes]
        runs[name] = tuple(
            load_config(
                config, [*overrides, *own, f"name={name}-{seed}", f"output={json.dumps(str(folder))}", f"train.seed={seed}"]
            )
            for seed in seeds
        )
    split = base.evaluate[-1] if split is None else split
    if split not in base.evaluate:
        raise ConfigError(f"split: expected one of the splits evaluated, {list(base.evaluate)}, but got {split!r}.")
    comparison = Comparison(folder, runs, tuple(seeds), split, task_of(base).METRICS, tuple(grid))
    _refuse_other_runs(comparison)
    return comparison


def run_comparison(comparison: Comparison, *, jobs: int = 1) -> Path:
    """Make every run that is not there yet, each in a process of its own, and compare them.

    What an earlier call finished is read, and a run that was cut short goes on where it stopped.

    Args:
        comparison: From :func:`plan_comparison`.
        jobs: Runs at the same time; times of runs that share a processor compare less well.

    Returns:
        The comparison's folder: ``comparison.json``, ``comparison.md``, ``report.html``, and the runs' own folders.

    Raises:
        DetkdError: If the data of a run is faulty, or its student, teachers and terms do not fit; nothing was started then.
    """
    missing = [[run for run in runs if not _finished(run)] for runs in comparison.runs.values()]
    _check(missing)
    waiting = [run for runs in missing for run in runs]
    title, total = comparison.folder.name, sum(map(len, comparison.runs.values()))
    with (
        reporter().counting(title, total, done=total - len(waiting), unit="runs") as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        futures = {pool.submit(_run_apart, run): run.name for run in waiting}
        try:
            for future in as_completed(futures):
                future.result()
                progress.finished(futures[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what runs now is let finish, nothing new is started
            raise
    report = summarise(comparison)
    write_json(comparison.folder / "comparison.json", report)
    write_text(comparison.folder / "comparison.md", comparison_markdown(report))
    if comparison.grid:
        grid_plot(report, comparison.folder / "grid.png")
    write_report(comparison.folder)
    record = {"event": "result", "folder": str(comparison.folder), **report}
    reporter().result(record, comparison_table(report), str(comparison.folder))
    return comparison.folder


def _check(missing: Sequence[Sequence[RunConfig]]) -> None:
    """Refuse what can be known before hours of the baseline's training: faults of data, settings, models and terms.

    Args:
        missing: For each recipe the runs to be made; they differ by their seeds alone.
    """
    datasets: dict[Any, Any] = {}
    for config in (runs[0] for runs in missing if runs):
        place = config.data, config.evaluate, config.family, str(getattr(config, "classify", None))
        if place not in datasets:  # every image is decoded, but once
            datasets[place] = task_of(config).load_data(config)
        check_settings(config)
        try:
            with reporting(SILENT):
                build_models(config, datasets[place])
        except DetkdError as error:
            raise type(error)(f"{config.name}: {error}") from error


def summarise(comparison: Comparison) -> dict[str, Any]:
    """Read the finished runs and pair them by seed; the result is what comparison.json holds."""
    results = {
        name: [_read_results(run, comparison.split, comparison.metrics) for run in runs]
        for name, runs in comparison.runs.items()
    }
    _refuse_other_data(comparison, results)
    _refuse_mixed_weights(comparison)
    first = comparison.metrics[0]
    teachers = [
        teacher["metrics"][comparison.split]
        for name, runs in results.items()
        for config, run in zip(comparison.runs[name], runs, strict=True)
        if config.distill is not None
        for teacher in config.distill.of_own_models(run["teachers"])
    ]
    judged = [metrics for metrics in teachers if metrics.get(first) is not None]  # not so one of other classes
    best = max(judged, key=lambda metrics: metrics[first], default=None)
    metrics = comparison.metrics
    teacher = None if best is None else {metric: best.get(metric) for metric in metrics}
    recipes = {name: _summarise_recipe(runs, comparison.split, metrics) for name, runs in results.items()}
    baseline = recipes[comparison.baseline]
    for name, recipe in recipes.items():
        if name == comparison.baseline:
            continue
        recipe["difference"] = {metric: asdict(paired_difference(recipe[metric], baseline[metric])) for metric in metrics}
        gap = None if teacher is None else teacher[first] - statistics.mean(baseline[first])
        # The share of a gap that is not there would be noise over noise.
        recipe["gap_closed"] = recipe["difference"][first]["mean"] / gap if gap is not None and gap > 0 else None
    return {
        "schema_version": SCHEMA_VERSION,
        "split": comparison.split,
        "metrics": list(metrics),
        "seeds": list(comparison.seeds),
        "baseline": comparison.baseline,
        "teacher": teacher,
        "recipes": recipes,
        "grid": [asdict(axis) for axis in comparison.grid],
        "command": sys.argv,
    }


def _refuse_other_data(comparison: Comparison, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Runs are reused, and may be older than the data: pairs of different pictures would be no pairs."""
    images: dict[str, Any] = {
        config.name: run.get("data", {}).get("images")
        for name, runs in results.items()
        for config, run in zip(comparison.runs[name], runs, strict=True)
    }
    first = next(iter(images))
    for name, own in images.items():
        if own != images[first]:
            raise DataError(
                f"Expected runs on the same pictures, but those of {name} are {own}, and of {first} {images[first]}. "
                f"Delete the older one's folder in {comparison.folder} to make it anew."
            )


def _refuse_mixed_weights(comparison: Comparison) -> None:
    """Weights may be trained anew while a comparison runs, and their file be gone when the runs are compared."""
    known: dict[str, tuple[str, str]] = {}
    for run in (run for runs in comparison.runs.values() for run in runs):
        for path, digest in kept_weights(run.output / run.name, run).items():
            first, others = known.setdefault(path, (run.name, digest))
            if digest != others:
                raise DataError(
                    f"Expected runs from the same files, but the weights in {path} were others for {run.name} than for "
                    f"{first}. Delete the older one's folder in {comparison.folder} to make it anew."
                )


def _summarise_recipe(runs: Sequence[Mapping[str, Any]], split: str, metrics: Sequence[str]) -> dict[str, Any]:
    last = runs[0]["history"][-1]
    terms = [name for name in last if name.startswith("train/")]
    return {
        **{metric: [run["student"]["metrics"][split][metric] for run in runs] for metric in metrics},
        "seconds_per_epoch": statistics.median(run["train_seconds"] / run["epochs"] for run in runs),
        "peak_memory_mib": statistics.median(run["peak_memory_mib"] for run in runs),
        "final_terms": {
            name.removeprefix("train/"): statistics.mean(run["history"][-1][name] for run in runs) for name in terms
        },
    }


def _run_apart(config: RunConfig) -> None:
    """Make one run in a process of its own: its memory is measured, and no run sees what another left behind."""
    log = config.output / f"{config.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # Spawned, not forked: a fork inherits locks that other threads hold.
    process = multiprocessing.get_context("spawn").Process(target=_run_logged, args=(config, log))
    process.start()
    process.join()
    if process.exitcode:
        raise DetkdError(f"{config.name}: the run ended with exit code {process.exitcode}; {log} says why.")


def _run_logged(config: RunConfig, log: Path) -> None:
    end_with_parent()
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            run_config(config, resume=_begun(config))
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def _refuse_other_runs(comparison: Comparison) -> None:
    """A run of the same name with another configuration, or of other weights, must not be taken for this one."""
    faults = []
    other: dict[str, list[str]] = {}
    digest = cache(weights_digest)  # most runs have the same teacher
    for runs in comparison.runs.values():
        for run in runs:
            folder = run.output / run.name
            changes = describe_changes(folder, run) if (folder / CONFIG).exists() else None
            if changes is not None:
                faults.append(
                    f"{run.name}: {folder / CONFIG} differs from what is asked for now: {changes}. Choose another name= or "
                    "delete it."
                )
            elif _finished(run) or _begun(run):
                for path in other_weights(folder, run, digest):
                    other.setdefault(path, []).append(run.name)
    faults += [
        f"{', '.join(names)}: made with other weights than {path} has now. Put the former ones back, or "
        f"delete the folder of each in {comparison.folder} to make it anew."
        for path, names in other.items()
    ]
    if faults:
        raise ConfigError("\n".join(faults))


def _finished(config: RunConfig) -> bool:
    return (config.output / config.name / "results.json").exists()


def _begun(config: RunConfig) -> bool:
    """Whether a run has finished an epoch, from which it goes on."""
    return (config.output / config.name / FAMILIES[config.student.family].engine.LAST_CHECKPOINT).exists()


def _read_results(config: RunConfig, split: str, metrics: Sequence[str]) -> dict[str, Any]:
    path = config.output / config.name / "results.json"
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"Expected the results of a run in {path}, but: {one_line(error)}. Delete the run.") from error
    fault = _results_fault(content, split, metrics)
    if fault:
        raise DataError(f"Expected the results of a run in {path}, but {fault}. Delete the run to make it anew.")
    found: dict[str, Any] = content
    return found


def _results_fault(content: Any, split: str, metrics: Sequence[str]) -> str | None:
    """What a comparison lacks in a run's results."""
    try:
        for role, model in [("student", content["student"]), *(("teacher", teacher) for teacher in content["teachers"])]:
            numbers = [model["metrics"][split].get(metric) for metric in metrics]
            if role == "student" and not all(isinstance(number, int | float) for number in numbers):
                return f"the student's {list(metrics)} of {split} are {numbers}"
            if role == "teacher" and not all(isinstance(number, int | float | None) for number in numbers):
                return f"a teacher's {list(metrics)} of {split} are {numbers}"
        rates = [content["train_seconds"], content["epochs"], content["peak_memory_mib"]]
        if not all(isinstance(number, int | float) for number in rates) or not content["epochs"] > 0:
            return f"its seconds, epochs and memory are {rates}"
        if not all(isinstance(row, dict) for row in content["history"]) or not content["history"]:
            return "there is no `history`"
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        return f"there is no {one_line(error)}"
    return None


def _read_recipes(path: Path) -> dict[str, list[str]]:
    tree = read_yaml(path)
    if not tree:
        raise ConfigError(f"{path}: expected a recipe at least, the baseline, but there is none.")
    for name, changes in tree.items():
        if not isinstance(name, str):
            raise ConfigError(f"{path}: expected names of recipes, but YAML reads {name!r} as none. Put it in quotes.")
        if not isinstance(changes, list) or not all(isinstance(change, str) for change in changes):
            raise ConfigError(f"{path}: expected `{name}` to be a list of key=value, but got {yaml.safe_dump(changes)!r}.")
    return tree


def _choose(recipes: Mapping[str, list[str]], only: Sequence[str], path: Path) -> dict[str, list[str]]:
    unknown = [name for name in only if name not in recipes]
    if unknown:
        raise ConfigError(f"recipes: expected names out of {list(recipes)} in {path}, but got {unknown}.")
    baseline = next(iter(recipes))
    return {name: changes for name, changes in recipes.items() if not only or name in only or name == baseline}
