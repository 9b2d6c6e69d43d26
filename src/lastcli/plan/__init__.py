"""What a run depends on: the options, the ratios, the methods and refits. Imports neither JAX nor NumPy."""

from lastcli.plan.plan import BUNDLED, LAYOUTS, METHODS, REFITS, Plan, build_plan, load_recipe

__all__ = ["BUNDLED", "LAYOUTS", "METHODS", "REFITS", "Plan", "build_plan", "load_recipe"]
