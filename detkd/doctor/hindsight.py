"""Why a finished run gained nothing, as far as its record tells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from detkd.distiller import TOTAL_SHARE, default_weight
from detkd.doctor.findings import Finding, Kind, passed
from detkd.doctor.teacher import LEAD
from detkd.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from detkd.config import DistillConfig

NO_GAP = Kind(
    "run.no_gap",
    "warning",
    "there was hardly a gap to close",
    "The teacher leads the student alone by less than .05: it has little to teach.",
    "Take a better teacher (larger, or trained longer), or a smaller student, fewer labels, a smaller input.",
)
NO_GAIN = Kind(
    "run.no_gain",
    "warning",
    "the student alone did no worse",
    "What the other findings name; or chance: runs of one method differ by some hundredths between seeds.",
    "Mend what the other findings name, and compare over several seeds (detkd compare).",
)
REACHED = Kind(
    "run.reached",
    "note",
    "the student ended close to its teacher",
    "Either distillation did its work, or there was no gap: no run of the student alone lies beside this one to tell.",
    "Train the student alone with the same configuration and distill=null, or use detkd compare.",
)
RISING = Kind(
    "run.rising",
    "warning",
    "the student was still learning when the run ended",
    "Validation rose over the last fifth of the epochs: what distillation adds does not show before the task is learnt, "
    "and a comparison compares speeds.",
    "Train longer, until the student alone is flat over the last fifth.",
)
OVERFITTED = Kind(
    "run.overfitted",
    "note",
    "the student was best long before the end",
    "It overfits, or the learning rate does not fall.",
    "Fewer epochs, more augmentation, or more weight for the teacher, which says more of a picture than its labels.",
)
HELD_BACK = Kind(
    "run.held_back",
    "note",
    "a term was held far below its published weight",
    "At that weight it would have drowned the task loss; `gradient_ratio` held it back.",
    "Nothing: it pulls at its share. To let it pull harder give it a `weight`, a multiple of the task loss's gradient.",
)
SILENCED = Kind(
    "run.silenced",
    "error",
    "a term did nothing to the end",
    "Its gradient was 0 in every batch that was measured, or its loss was 0 throughout.",
    "Leave it out, or run the doctor on the run's configuration: it looks at each term's gradient.",
)
UNFOLLOWED = Kind(
    "run.unfollowed",
    "warning",
    "the student did not come closer to the teacher",
    "The term did not fall over the run: its weight is too small, the student is too small for it, or the teacher says "
    "something else of each view.",
    "Raise its weight, take another term, or a teacher that is closer in size.",
)
KINDS = (SILENCED, NO_GAP, NO_GAIN, RISING, UNFOLLOWED, OVERFITTED, REACHED, HELD_BACK)

RISE = 0.01  # of the metric, between the halves of the last fifth
LEAST = 10  # validations below which a course says nothing
FALL = 0.95  # of its first value a term should fall to


def check_record(
    results: Mapping[str, Any],
    distill: DistillConfig | None,
    *,
    watched: str,
    metric: str,
    alone: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Judge a finished run by its ``results.json``.

    Args:
        results: What it holds.
        distill: The terms and how they were balanced; None of a run without a teacher.
        watched: Key of the validation metric in its history.
        metric: The metric that models are compared by.
        alone: Results of the same student, trained alone; None where there is no such run.
    """
    history: list[dict[str, float]] = results["history"]
    findings = _course([row[watched] for row in history if _is_number(row.get(watched))])
    if distill is None:
        return findings
    findings += _gap({**results, "teachers": distill.of_own_models(results["teachers"])}, alone, metric)
    # The student does not come closer to an average that follows it.
    follows = not distill.all_teachers or bool(distill.of_own_models(distill.all_teachers))
    for term in distill.losses():
        if not any(term.schedule.factor(epoch + 0.5, len(history)) for epoch in range(len(history))):
            continue  # its schedule says that it does nothing, as of a start without distillation
        values = [row[f"train/{term.name}"] for row in history if _is_number(row.get(f"train/{term.name}"))]
        weights = [epoch[term.name] for epoch in results["distill_weights"] if term.name in epoch]
        share = TOTAL_SHARE / len(distill.terms) if term.weight is None else term.weight
        # A weight on a schedule does not tell how hard the term would pull.
        balanced = distill.balance == "gradient_ratio" and term.schedule == Schedule()
        findings += _term(term.name, values, weights, share if balanced else None, follows=follows)
    return findings


def _gap(results: Mapping[str, Any], alone: Mapping[str, Any] | None, metric: str) -> list[Finding]:
    """What there was to gain, and what of it was gained, by the best teacher on the last split evaluated."""
    split = list(results["student"]["metrics"])[-1]
    own, teacher = results["student"]["metrics"][split].get(metric), _best(results["teachers"], split, metric)
    if own is None or teacher is None:
        return []
    detail = f"{metric} on `{split}`: teacher {teacher:.3f}, this run {own:.3f}"
    base = None if alone is None else alone["student"]["metrics"].get(split, {}).get(metric)
    if base is None:
        return [REACHED.found(f"{detail}.") if teacher - own < LEAD else passed("run", f"{detail}.")]
    detail += f", the student alone {base:.3f} ({own - base:+.3f}, one seed)."
    found = [NO_GAP.found(detail)] if teacher - base < LEAD else []
    found += [NO_GAIN.found(detail)] if own <= base else []
    return found or [passed("run", detail)]


def _best(teachers: Sequence[Mapping[str, Any]], split: str, metric: str) -> float | None:
    values = [one["metrics"][split].get(metric) for one in teachers]
    return max((value for value in values if value is not None), default=None)


def _course(values: Sequence[float]) -> list[Finding]:
    """Whether validation was still rising, or had long been falling."""
    if len(values) < LEAST:
        return []
    last = values[-max(len(values) // 5, 4) :]
    half = len(last) // 2
    rise = sum(last[-half:]) / half - sum(last[:half]) / half
    detail = f"{values[-1]:.3f} at the end, {rise:+.3f} between the halves of the last fifth"
    best = values.index(max(values))
    if rise > RISE:
        return [RISING.found(f"{detail}.")]
    if best < len(values) // 2 and values[best] - values[-1] > RISE:
        return [OVERFITTED.found(f"{detail}; best was validation {best + 1} of {len(values)}, {max(values):.3f}.")]
    return [passed("run", f"Validation is flat: {detail}.")]


def _term(
    name: str, values: Sequence[float], weights: Sequence[float], share: float | None, *, follows: bool
) -> list[Finding]:
    if (values and not any(values)) or (weights and not any(weights)):
        return [
            SILENCED.found(f"`{name}`: loss {values[-1] if values else 0:.3g}, weight {weights[-1] if weights else 0:.3g}.")
        ]
    findings = []
    at_work = [value for value, weight in zip(values, weights, strict=False) if weight > 0]
    if follows and len(at_work) >= LEAST and at_work[-1] > FALL * at_work[0]:
        findings.append(UNFOLLOWED.found(f"`{name}`: {at_work[0]:.3g} in the first epoch, {at_work[-1]:.3g} in the last."))
    if share is not None and weights and weights[-1] > 0:
        pull = default_weight(name) * share / weights[-1]  # of the task loss's gradient, at the published weight
        if pull > max(share, 1.0):
            findings.append(
                HELD_BACK.found(
                    f"`{name}`: at {default_weight(name):g} it would pull {pull:.1f} times as hard as the task."
                )
            )
    return findings


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
