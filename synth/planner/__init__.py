"""The best configuration of many: bounds first, published schedules next, the synthesizer last.

``steps`` says how long a step takes, flushed or double-buffered; ``judging`` judges one configuration;
``sweeping`` judges all that can still win, in the processes of an executor (``executors``,
``ray_executor``), and ``journal`` is what a broken sweep goes on from; ``synthesizing`` searches where the
best may be beaten, and ``documents`` writes the winner down. What a configuration is, a
:class:`~synth.drafts.Recipe` knows.
"""
