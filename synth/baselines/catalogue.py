"""What a baseline is, and all of them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from synth.baselines.balanced_memory import (
    bpipe,
    bpipe_bubble_ticks,
    bpipe_peak_bytes,
    bpipe_problem,
)
from synth.baselines.breadth_first import looped_bfs, looped_bfs_bubble_ticks, looped_bfs_peak_bytes
from synth.baselines.chimera import (
    chimera,
    chimera_asymmetric,
    chimera_asymmetric_bubble_ticks,
    chimera_asymmetric_problem,
    chimera_bubble_ticks,
    chimera_peak_bytes,
    chimera_problem,
)
from synth.baselines.directions import HELD_TWICE
from synth.baselines.dual_pipe import (
    dualpipe,
    dualpipe_bubble_ticks,
    dualpipe_peak_bytes,
    dualpipe_problem,
    dualpipe_v,
    dualpipe_v_bubble_ticks,
    dualpipe_v_peak_bytes,
)
from synth.baselines.flushed import (
    gpipe,
    gpipe_bubble_ticks,
    gpipe_peak_bytes,
    one_f_one_b,
    one_f_one_b_bubble_ticks,
    one_f_one_b_peak_bytes,
)
from synth.baselines.grouped import (
    group_interleaved_1f1b,
    group_interleaved_1f1b_bubble_ticks,
    group_interleaved_1f1b_peak_bytes,
)
from synth.baselines.interleaved import (
    interleaved_1f1b,
    interleaved_1f1b_bubble_ticks,
    interleaved_1f1b_peak_bytes,
)
from synth.baselines.interleaved_zero_bubble import (
    interleaved_zero_bubble,
    interleaved_zero_bubble_bubble_ticks,
    interleaved_zero_bubble_peak_bytes,
)
from synth.baselines.sequence import (
    USUAL_SLICES,
    seq1f1b,
    seq1f1b_bubble_ticks,
    seq1f1b_peak_bytes,
    seq1f1b_problem,
)
from synth.baselines.two_stage import (
    two_bp_1f1b,
    two_bp_1f1b_bubble_ticks,
    two_bp_1f1b_peak_bytes,
    two_bp_gpipe,
    two_bp_gpipe_bubble_ticks,
    two_bp_gpipe_peak_bytes,
    two_bp_interleaved_1f1b,
    two_bp_interleaved_1f1b_bubble_ticks,
    two_bp_interleaved_1f1b_peak_bytes,
)
from synth.baselines.undivided_v import (
    one_f_one_b_v,
    one_f_one_b_v_bubble_ticks,
    one_f_one_b_v_peak_bytes,
)
from synth.baselines.unflushed import (
    pipedream,
    pipedream_2bw,
    pipedream_2bw_bubble_ticks,
    pipedream_2bw_peak_bytes,
    pipedream_2bw_problem,
    pipedream_bubble_ticks,
    pipedream_peak_bytes,
    pipedream_problem,
)
from synth.baselines.v_shaped import (
    v_half,
    v_half_bubble_ticks,
    v_half_peak_bytes,
    v_min,
    v_min_bubble_ticks,
    v_min_peak_bytes,
    v_zb,
    v_zb_bubble_ticks,
    v_zb_peak_bytes,
)
from synth.baselines.wave import hanayo, hanayo_bubble_ticks, hanayo_peak_bytes
from synth.baselines.zero_bubble import (
    zb_h1,
    zb_h1_bubble_ticks,
    zb_h1_peak_bytes,
    zb_h2,
    zb_h2_bubble_ticks,
    zb_h2_peak_bytes,
)
from synth.ops import RankOrders
from synth.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A published schedule: its rule and its closed forms.

    Every function raises :class:`~synth.errors.BaselineUndefinedError` where the schedule is not defined.
    Orders and closed forms are those of the problem that ``reshape`` returns, which it leaves as it is.

    Parameters
    ----------
    name
        As the command line takes it.
    source
        Paper and place.
    orders
        The order of every rank.
    bubble_ticks
        Idle ticks of the rank with the longest span, or None outside the domain its docstring states.
    peak_bytes
        The peak of every rank, static bytes included, or None outside the domain its docstring states.
    reshape
        The problem that it schedules in place of a plain chain; None for the chain itself.
    makes
        What it makes of a plain chain, in words.
    """

    name: str
    source: str
    orders: Callable[[Problem], RankOrders]
    bubble_ticks: Callable[[Problem], int | None]
    peak_bytes: Callable[[Problem], tuple[int, ...] | None]
    reshape: Callable[[Problem], Problem] | None = None
    makes: str = ""


_ZERO_BUBBLE = "Qi et al., Zero Bubble Pipeline Parallelism, arXiv 2401.10241"
_TWO_STAGE = "Rae et al., 2BP: 2-Stage Backpropagation, arXiv 2405.18047, figure 1"
_CONTROLLABLE = "Qi et al., Pipeline Parallelism with Controllable Memory, arXiv 2405.15362"

BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        baseline.name: baseline
        for baseline in (
            Baseline(
                name="gpipe",
                source="Huang et al., GPipe, arXiv 1811.06965, figure 2",
                orders=gpipe,
                bubble_ticks=gpipe_bubble_ticks,
                peak_bytes=gpipe_peak_bytes,
            ),
            Baseline(
                name="looped-bfs",
                source="Lamy-Poirier, Breadth-First Pipeline Parallelism, arXiv 2211.05953",
                orders=looped_bfs,
                bubble_ticks=looped_bfs_bubble_ticks,
                peak_bytes=looped_bfs_peak_bytes,
            ),
            Baseline(
                name="2bp-gpipe",
                source=_TWO_STAGE,
                orders=two_bp_gpipe,
                bubble_ticks=two_bp_gpipe_bubble_ticks,
                peak_bytes=two_bp_gpipe_peak_bytes,
            ),
            Baseline(
                name="1f1b",
                source="Narayanan et al., PipeDream-Flush, arXiv 2006.09503",
                orders=one_f_one_b,
                bubble_ticks=one_f_one_b_bubble_ticks,
                peak_bytes=one_f_one_b_peak_bytes,
            ),
            Baseline(
                name="pipedream",
                source="Harlap et al., PipeDream, arXiv 1806.03377",
                orders=pipedream,
                bubble_ticks=pipedream_bubble_ticks,
                peak_bytes=pipedream_peak_bytes,
                reshape=pipedream_problem,
                makes="stage s of p keeps p-s versions of its weights",
            ),
            Baseline(
                name="pipedream-2bw",
                source="Narayanan et al., PipeDream-2BW, arXiv 2006.09503, section 3.1",
                orders=pipedream_2bw,
                bubble_ticks=pipedream_2bw_bubble_ticks,
                peak_bytes=pipedream_2bw_peak_bytes,
                reshape=pipedream_2bw_problem,
                makes="every stage keeps two versions of its weights",
            ),
            Baseline(
                name="seq1f1b",
                source="Sun et al., Seq1F1B, arXiv 2406.03488",
                orders=seq1f1b,
                bubble_ticks=seq1f1b_bubble_ticks,
                peak_bytes=seq1f1b_peak_bytes,
                reshape=seq1f1b_problem,
                makes=f"every microbatch in {USUAL_SLICES} sequence slices",
            ),
            Baseline(
                name="bpipe",
                source="Kim et al., BPipe, ICML 2023",
                orders=bpipe,
                bubble_ticks=bpipe_bubble_ticks,
                peak_bytes=bpipe_peak_bytes,
                reshape=bpipe_problem,
                makes="the first ranks' activations above the cap are stored on the last ranks",
            ),
            Baseline(
                name="2bp-1f1b",
                source=_TWO_STAGE,
                orders=two_bp_1f1b,
                bubble_ticks=two_bp_1f1b_bubble_ticks,
                peak_bytes=two_bp_1f1b_peak_bytes,
            ),
            Baseline(
                name="chimera-asymmetric",
                source="Barley et al., arXiv 2605.24006, after Chimera, arXiv 2107.06925",
                orders=chimera_asymmetric,
                bubble_ticks=chimera_asymmetric_bubble_ticks,
                peak_bytes=chimera_peak_bytes,
                reshape=chimera_asymmetric_problem,
                makes=f"{HELD_TWICE}; the first half of the stages with half the layers of the others",
            ),
            Baseline(
                name="chimera",
                source="Li and Hoefler, Chimera, arXiv 2107.06925, figure 3",
                orders=chimera,
                bubble_ticks=chimera_bubble_ticks,
                peak_bytes=chimera_peak_bytes,
                reshape=chimera_problem,
                makes=HELD_TWICE,
            ),
            Baseline(
                name="hanayo",
                source="Liu et al., Hanayo, arXiv 2308.15762",
                orders=hanayo,
                bubble_ticks=hanayo_bubble_ticks,
                peak_bytes=hanayo_peak_bytes,
            ),
            Baseline(
                name="1f1b-v",
                source=f"{_CONTROLLABLE}, appendix I",
                orders=one_f_one_b_v,
                bubble_ticks=one_f_one_b_v_bubble_ticks,
                peak_bytes=one_f_one_b_v_peak_bytes,
            ),
            Baseline(
                name="interleaved-1f1b",
                source="Narayanan et al., Megatron-LM, arXiv 2104.04473, section 2.2",
                orders=interleaved_1f1b,
                bubble_ticks=interleaved_1f1b_bubble_ticks,
                peak_bytes=interleaved_1f1b_peak_bytes,
            ),
            Baseline(
                name="2bp-interleaved-1f1b",
                source=_TWO_STAGE,
                orders=two_bp_interleaved_1f1b,
                bubble_ticks=two_bp_interleaved_1f1b_bubble_ticks,
                peak_bytes=two_bp_interleaved_1f1b_peak_bytes,
            ),
            Baseline(
                name="group-interleaved-1f1b",
                source="Wan et al., PipeOffload, arXiv 2503.01328, table 1",
                orders=group_interleaved_1f1b,
                bubble_ticks=group_interleaved_1f1b_bubble_ticks,
                peak_bytes=group_interleaved_1f1b_peak_bytes,
            ),
            Baseline(
                name="interleaved-zero-bubble",
                source="PyTorch 2.13, ScheduleInterleavedZeroBubble, after arXiv 2401.10241",
                orders=interleaved_zero_bubble,
                bubble_ticks=interleaved_zero_bubble_bubble_ticks,
                peak_bytes=interleaved_zero_bubble_peak_bytes,
            ),
            Baseline(
                name="zb-h1",
                source=f"{_ZERO_BUBBLE}, table 2",
                orders=zb_h1,
                bubble_ticks=zb_h1_bubble_ticks,
                peak_bytes=zb_h1_peak_bytes,
            ),
            Baseline(
                name="zb-h2",
                source=f"{_ZERO_BUBBLE}, table 2",
                orders=zb_h2,
                bubble_ticks=zb_h2_bubble_ticks,
                peak_bytes=zb_h2_peak_bytes,
            ),
            Baseline(
                name="dualpipe",
                source="DeepSeek-AI, DeepSeek-V3, arXiv 2412.19437, section 3.2.1; the released DualPipe",
                orders=dualpipe,
                bubble_ticks=dualpipe_bubble_ticks,
                peak_bytes=dualpipe_peak_bytes,
                reshape=dualpipe_problem,
                makes=HELD_TWICE,
            ),
            Baseline(
                name="dualpipe-v",
                source="DeepSeek-AI, DeepSeek-V3, arXiv 2412.19437, section 3.2.1; the released DualPipeV",
                orders=dualpipe_v,
                bubble_ticks=dualpipe_v_bubble_ticks,
                peak_bytes=dualpipe_v_peak_bytes,
            ),
            Baseline(
                name="v-min",
                source=f"{_CONTROLLABLE}, table 8",
                orders=v_min,
                bubble_ticks=v_min_bubble_ticks,
                peak_bytes=v_min_peak_bytes,
            ),
            Baseline(
                name="v-half",
                source=f"{_CONTROLLABLE}, table 9",
                orders=v_half,
                bubble_ticks=v_half_bubble_ticks,
                peak_bytes=v_half_peak_bytes,
            ),
            Baseline(
                name="v-zb",
                source=f"{_CONTROLLABLE}, table 1",
                orders=v_zb,
                bubble_ticks=v_zb_bubble_ticks,
                peak_bytes=v_zb_peak_bytes,
            ),
        )
    }
)
"""The baselines by name, mostly the better the later: a search tries the last one first."""
