"""Turns a model and a machine into a problem document; knows no solver, and but for ``measured`` no torch.

The way from a configuration to a problem::

    architectures, described ─▶ model_shape ─▶ layers ─▶ stages ─▶ planning ─▶ synth.problem
       (config.json, flags)                      │         ▲          ▲
                                 attention, feed_forward   │      partition, quantise, optimizer_state
                                    (operations)        roofline ◀── cluster ◀── hardware

``layers`` says what every layer computes and keeps, formula by formula; ``roofline`` turns that into
seconds; ``partition`` cuts the layers into stages; ``fitting`` says what fits, and what would help.
:mod:`costmodels.measured` runs a user's own layers instead, and measures them.
"""
