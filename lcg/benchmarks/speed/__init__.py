"""How fast guided steps are: lcg's loops beside faithful re-implementations of those of its peers, on the same weights.

    python -m lcg.benchmarks.speed --out runs/speed [--quick]

One thread on one core, process CPU time, candidates in turn, medians and quartiles; before anything is timed, every
candidate must give the results of its reference in float64.
"""
