"""Many production cores on one virtual clock, with faulty links and checkers outside.

The simulation is deterministic: a seed decides a whole run, in every process.
"""
