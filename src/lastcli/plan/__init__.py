"""What a run depends on: the options, the ratios, the methods and refits. Imports neither JAX nor NumPy."""

from lastcli.plan.building import build_plan, resolve_plan
from lastcli.plan.methods import BEST, METHODS, Method
from lastcli.plan.plan import BUNDLED, LAYOUTS, Plan, is_bundled, method_of, names_no_file
from lastcli.plan.recipes import load_recipe
from lastcli.plan.refits import REFITS, Refit

__all__ = [
    "BEST",
    "BUNDLED",
    "LAYOUTS",
    "METHODS",
    "REFITS",
    "Method",
    "Plan",
    "Refit",
    "build_plan",
    "is_bundled",
    "load_recipe",
    "method_of",
    "names_no_file",
    "resolve_plan",
]
