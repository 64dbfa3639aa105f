"""Measurements. How OpenMP waits is settled here, before anything loads llama.cpp."""

import os

from meshslm.engine import openmp

USER_ENVIRONMENT = dict(os.environ)
"""As it was given: other programs that are measured get this one."""

os.environ.update(openmp.settings(os.environ))
