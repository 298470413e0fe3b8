"""The cut where the stages of a rank share its memory: not to be decided stage by stage, so CP-SAT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ortools.sat.python import cp_model

from costmodels.chain import Chain
from synth.cpsat import SolveParams, solve

EFFORT = SolveParams(time_limit_s=120.0, work_limit=20.0, workers=1, seed=0)
"""Chains of a hundred layers take a second; a cut found by the end of this is taken unproved."""


def cut_with_shared_memory(
    chain: Chain,
    stage_to_rank: Sequence[int],
    limit_bytes: int,
    allowed_starts: Sequence[Sequence[int]],
) -> tuple[int, ...] | None:
    """Minimise the slowest stage with every rank's layers, over all its stages, within the limit.

    Parameters
    ----------
    chain
        The layers.
    stage_to_rank
        The rank of every stage.
    limit_bytes
        Of each rank.
    allowed_starts
        Where each stage may begin.

    Returns
    -------
    The first layer of every stage and the number of layers, or None when no cut that fits was found.
    """
    model, num_layers = cp_model.CpModel(), len(chain.costs)
    starts = [
        model.new_int_var_from_domain(cp_model.Domain.from_values(list(allowed)), "")
        for allowed in allowed_starts
    ]
    starts.append(model.new_constant(num_layers))
    times = [_sum_before(model, start, chain.costs) for start in starts]
    slowest = model.new_int_var(0, sum(chain.costs), "")
    for (first, last), (begun, ended) in zip(pairwise(starts), pairwise(times), strict=True):
        model.add(last >= first + 1)
        model.add(ended - begun <= slowest)
    memory = _Memory(
        model=model,
        chain=chain,
        starts=starts,
        static=[_sum_before(model, start, chain.static_bytes) for start in starts],
        kept=[_sum_before(model, start, chain.kept_bytes) for start in starts],
    )
    for rank in set(stage_to_rank):
        memory.limit_rank([s for s, r in enumerate(stage_to_rank) if r == rank], limit_bytes)
    model.minimize(slowest)
    solved = solve(model, EFFORT)
    return tuple(solved.solver.value(start) for start in starts) if solved.has_solution else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    """What ranks hold, as variables: static and kept bytes of the layers before each cut."""

    model: cp_model.CpModel
    chain: Chain
    starts: Sequence[cp_model.IntVar]
    static: Sequence[cp_model.IntVar]
    kept: Sequence[cp_model.IntVar]

    def limit_rank(self, stages: Sequence[int], limit_bytes: int) -> None:
        """Every moment of one microbatch's backward through these stages stays within the limit.

        In a stage that is when it computes its last layer again, or an earlier one that takes more than the
        layer behind it kept and takes: of other layers, the one behind is never the lower.
        """
        held = cp_model.LinearExpr.sum([self.static[s + 1] - self.static[s] for s in stages])
        for stage in stages:
            begun, ended = self.kept[stage], self.kept[stage + 1]
            self.model.add(held + ended - begun + self._last_again(stage) <= limit_bytes)
            for layer, kept_with_it in self._peaks():
                again = self.chain.extra_bytes[layer]
                at_peak = self.model.add(held - begun + (kept_with_it + again) <= limit_bytes)
                at_peak.only_enforce_if(self._before(stage, layer), ~self._before(stage + 1, layer))
            held = held + ended - begun

    def _last_again(self, stage: int) -> cp_model.IntVar:
        """What the last layer of a stage computes again."""
        return _entry(self.model, self.starts[stage + 1], [0, *self.chain.extra_bytes])

    def _peaks(self) -> Iterator[tuple[int, int]]:
        """The layers at which the backward may hold more than at the next, with what is kept up to them."""
        again, kept = self.chain.extra_bytes, self.chain.kept_bytes
        for layer, kept_with_it in enumerate(accumulate(kept[:-1])):
            if again[layer] > again[layer + 1] + kept[layer + 1]:
                yield layer, kept_with_it

    def _before(self, stage: int, layer: int) -> cp_model.IntVar:
        """Whether a stage begins at a layer or before it."""
        begins = self.model.new_bool_var("")
        self.model.add(self.starts[stage] <= layer).only_enforce_if(begins)
        self.model.add(self.starts[stage] > layer).only_enforce_if(~begins)
        return begins


def _sum_before(model: cp_model.CpModel, start: cp_model.IntVar, values: Sequence[int]) -> cp_model.IntVar:
    """The sum of the values before a cut, as a variable."""
    return _entry(model, start, list(accumulate(values, initial=0)))


def _entry(model: cp_model.CpModel, index: cp_model.IntVar, values: Sequence[int]) -> cp_model.IntVar:
    """One of the values, as a variable."""
    entry = model.new_int_var(0, max(values), "")
    model.add_element(index, values, entry)
    return entry
