"""What edda costs, measured against a prototype of group commit with nothing around it.

`python -m benchmarks` (or `./run bench`) runs everything. Absolute figures mean little: they differ by a factor of two
between machines and by more while somebody else uses the same one. So edda and the prototype take turns in one run, and
what counts is the median of the ratios of neighbours.
"""
