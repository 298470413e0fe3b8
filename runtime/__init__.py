"""Executes schedule documents with ``torch.distributed``: needs torch and ``synth.document``, no solver.

From plan to step
    :mod:`runtime.communication` (which rank sends what when, from the document alone) of
    :mod:`runtime.orders` that hold all ops,
    :mod:`runtime.executor` (:class:`~runtime.executor.PipelineRunner` walks a rank's ops) and
    :mod:`runtime.one_step` (what each takes and where its result goes),
    :mod:`runtime.batches` (the batch as microbatches),
    :mod:`runtime.stage` (F, B, W and BW of one module), :mod:`runtime.preparation` and
    :mod:`runtime.shapes` (what ranks agree on before the first step), :mod:`runtime.randomness`
Beyond a chain of stages
    :mod:`runtime.routes` (which stage of the document runs what of the model, and is fed by which),
    :mod:`runtime.eviction` (activations that leave), :mod:`runtime.storage` (ranks that store those of
    others), :mod:`runtime.posting` (when they pass),
    :mod:`runtime.slices` and :mod:`runtime.cuts` (sequence slices), :mod:`runtime.replicas` (the weights of
    several directions)
Divided backward
    :mod:`runtime.deferred` (layers that put off their weight gradients),
    :mod:`runtime.native_split` (any module); :mod:`runtime.recomputation` (keeping blocks' inputs alone)
Without flushes
    :mod:`runtime.unflushed` (:class:`~runtime.unflushed.UnflushedRunner` trains batch behind batch and
    updates on the way), :mod:`runtime.rolling` (a document's steady state, repeated without end),
    :mod:`runtime.versions` (the weights that microbatches under way still need)
Between processes
    :mod:`runtime.world` (ranks, replicas, groups), :mod:`runtime.devices` (which GPU, or whose),
    :mod:`runtime.transport` (messages, their buffers), :mod:`runtime.gradients` and :mod:`runtime.flat`
    (sums over replicas, shares of the update); :mod:`runtime.watch`, :mod:`runtime.waiting` and
    :mod:`runtime.bulletin` (nobody hangs when another fails), :mod:`runtime.ending` (nor ends without a word)
Measuring and resuming
    :mod:`runtime.clock`, :mod:`runtime.allocators` (what is held at most), :mod:`runtime.trials` (without a
    trace), :mod:`runtime.timeline`,
    :mod:`runtime.checkpoint`
The example
    :mod:`runtime.train` and its :mod:`runtime.arguments`, :mod:`runtime.llama`, :mod:`runtime.text`

As a library, the same on every rank::

    schedule = read_schedule(text).schedule
    world = join(schedule.problem.num_ranks)
    modules = {stage: build(stage) for stage in Routes(schedule.problem).held_by(world.rank)}
    like = TensorSpec((4, 128), torch.int64)  # one microbatch
    runner = PipelineRunner(schedule, modules, world=world, microbatch=like, loss=loss)
    optimizer = torch.optim.AdamW(runner.parameters())
    for batch, target in data:
        loss = runner.step(batch, target)
        optimizer.step()
        runner.gather()
    runner.close()
"""
