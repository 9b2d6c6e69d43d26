"""Verbs about recipes: `check` one, `show` the plan it makes, `init` one from a checkpoint, the `schema` of all."""
