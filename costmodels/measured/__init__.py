"""Runs a user's own model and turns what is measured into a problem document: the part that needs torch.

The way from a function that makes layers to a problem::

    factories ─▶ stage_runs ─▶ timing ─────────┐
     (import)     (F, B, W, BW   (events)      ├─▶ profiling ─▶ profiles ─▶ profiled_problem ─▶ synth.problem
                  of runtime.stage)            │                   ▲                ▲
                      └──▶ memory ─────────────┤               spreads        link_costs ◀── links (torchrun)
                   (saved_tensors)             │
                      └──▶ shapes_only ────────┘        traces: times of a profiler's trace, without torch

``stage_runs`` runs what :mod:`runtime.stage` would run in training, so what is measured is what is executed.
Ready-made traces, measured links and the values themselves are handled without torch.
"""
