"""What a planner may choose for a model on a cluster, and what each choice costs; knows no solver.

``fleet`` is the cluster, ``seats`` says which rank sits on which node, ``traffic`` what transfers and
all-reduces take there; ``shapes`` lists the choices, and ``recipe`` bounds each and turns it into a problem.
``pipedream`` is PipeDream's own planner, to compare with.
"""
