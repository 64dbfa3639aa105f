"""Measurements that compare within one run: against a bound, or a rival, on this machine now."""
