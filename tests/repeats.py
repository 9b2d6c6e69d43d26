"""Combinations that ask a costly question again.

They are marked slow, since other combinations of the same test ask it in every run. `pytest -m slow` runs them.
"""

from __future__ import annotations

import pytest

__all__ = ["REPEATS", "mark"]

REPEATS = {
    # the elimination of s5 and the ranking and projection of s4d are matched and their poles refitted, one pair each
    "tests/contract/test_methods.py::test_the_compact_model_answers_as_the_masked_one": (
        "s5-obs-poles+match", "s4d-last-match", "s4d-last-poles+match", "s4d-last-poles", "s4d-balanced-match",
    ),
    # of every pair without the matching; with it one ranking and one elimination
    "tests/verbs/test_unstable.py::test_an_unstable_state_is_kept_and_its_pole_stays": (
        "matched-last-none", "matched-obs-poles", "matched-aire-h2", "matched-balanced-none", "matched-obs-calibrated",
        "-last-poles",
    ),
    # s5 and s4d; both directions in the moments of padded batches
    "tests/recording/test_capture.py::test_the_moments_are_those_of_the_tools_own_calibration_pass": (
        "s5 both ways-False", "s4d-False", "s5-True",
    ),
    "tests/recording/test_capture.py::test_the_moments_of_the_same_batches_are_the_same_to_float64_rounding": (
        "s5 both ways", "s4d",
    ),
    "tests/recording/test_capture.py::test_pruned_it_is_what_calibration_gives_and_verify_computes_it_anew": (
        "s5 both ways-last", "s5-obs", "s4d-last",
    ),
    # one alteration of the matched file is enough: the others are found in the files of every other kind
    "tests/verbs/test_verify.py::test_a_layer_that_was_altered_is_found": tuple(
        f"obs + sequential + --match-output-{change}" for change in ("garbage", "louder", "direct", "silent")
    ),
    "tests/reduction/test_match_output.py::test_outputs_come_closer_on_data_not_seen": ("True",),
    "tests/reduction/test_match_output.py::test_sequences_of_outputs_are_matched_at_every_step_that_has_one": ("1",),
    "tests/engine/test_poles.py::test_disturbed_poles_and_inputs_are_found_again": ("multi", "delay", "mimo"),
    "tests/engine/test_poles.py::test_a_reduced_layer_gets_better_on_data_it_has_not_seen": ("multi",),
    "tests/engine/test_poles.py::test_a_real_read_out_stays_real": ("<lambda>",),
    "tests/engine/test_selective.py::test_a_refit_answers_better_than_leaving_states_out": ("1",),
    "tests/families/test_mamba.py::test_a_step_at_a_time_says_the_same": ("1",),
    "tests/families/test_s4_sequence_model.py::test_the_command_line_prunes_evaluates_and_sweeps": (
        "DSS", "V0, batch norm after",
    ),
    "tests/families/test_mamba_hybrids.py::test_hybrids_are_scored_pruned_and_load_again": ("Zamba",),
    "tests/families/test_mamba_transformers.py::test_transformers_loads_and_generates": (
        "as it is-mamba", "as it is-mamba2",
    ),
    "tests/docs/test_jax_families.py::test_s5": ("both ways",),
    "tests/docs/test_jax_families.py::test_annotated_s4": ("False-s4d", "True-dss"),
    "tests/model/test_flax.py::test_a_compact_file_loads_into_the_flax_module_and_answers_as_last_does": (
        "options1-ragged",
    ),
    "tests/verbs/test_tasks.py::test_models_with_a_log_softmax_give_logits_of_independent_labels": ("minimal-lru",),
}  # fmt: skip


def mark(items: list[pytest.Item], whole: bool) -> None:
    """Mark the repeats among `items`; where the whole suite was collected, each of them has to be there.

    Raises:
        pytest.UsageError: a repeat that no test has.
    """
    wanted = {f"{test}[{case}]" for test, cases in REPEATS.items() for case in cases}
    for item in items:
        if item.nodeid in wanted:
            item.add_marker(pytest.mark.slow)
    if whole and (missing := wanted - {item.nodeid for item in items}):
        raise pytest.UsageError(f"tests/repeats.py names what no test has: {', '.join(sorted(missing))}")
