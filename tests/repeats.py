"""Combinations that ask a costly question again.

They are marked slow, since other combinations of the same test ask it in every run. `pytest -m slow` runs them.
"""

from __future__ import annotations

import pytest

__all__ = ["REPEATS", "mark"]

REPEATS = {
    # the elimination of s5 and the ranking and projection of s4d are matched and their poles refitted, one pair each
    "tests/contract/test_methods.py::test_the_compact_model_answers_as_the_masked_one": (
        "s5-obs-poles+match", "s4d-last-match", "s4d-last-poles+match", "s4d-balanced-poles+match",
        "s4d-last-poles", "s4d-balanced-match",
        "s5-obs-poles", "s4d-balanced-poles",
    ),
    # of every pair without the matching; with it one ranking and one elimination
    "tests/verbs/test_unstable.py::test_an_unstable_state_is_kept_and_its_pole_stays": (
        "matched-last-none", "matched-obs-poles", "matched-aire-h2", "matched-balanced-none", "matched-obs-calibrated",
        "-last-poles", "matched-last-poles",
    ),
    # s5 and s4d; both directions in the moments of padded batches
    "tests/recording/test_capture.py::test_the_moments_are_those_of_the_tools_own_calibration_pass": (
        "s5 both ways-False", "s4d-False", "s4d-True", "s5-True", "s5-False",
    ),
    "tests/recording/test_capture.py::test_the_moments_of_the_same_batches_are_the_same_to_float64_rounding": (
        "s5 both ways", "s4d",
    ),
    "tests/recording/test_capture.py::test_pruned_it_is_what_calibration_gives_and_verify_computes_it_anew": (
        "s5 both ways-last", "s5 both ways-obs", "s5-obs", "s4d-last", "s4d-obs",
    ),
    # one alteration of the matched file is enough: the others are found in the files of every other kind
    "tests/verbs/test_verify.py::test_a_layer_that_was_altered_is_found": tuple(
        f"obs + sequential + --match-output-{change}" for change in ("garbage", "louder", "direct", "silent", "shifted")
    ) + tuple(f"last + poles-{change}" for change in ("louder", "direct", "silent", "shifted")),
    # new poles are altered in the file of the test above
    "tests/verbs/test_verify.py::test_what_prune_wrote_verifies_and_each_check_says_how_it_is_known": ("last + poles",),
    # two pairs of names in either container
    "tests/model/test_copies.py::test_an_averaged_copy_is_asked_about_and_chosen": tuple(
        f"{container}-{pair}"
        for container, pairs in {
            "pth": ("model.-model_ema.", "model.-model_ema.module.", "online_model.-ema_model.", "student.-teacher."),
            "safetensors": ("model.-model_ema.", "model.-ema.", "online_model.-ema_model.", "net.-averaged_model."),
        }.items()
        for pair in pairs
    ),
    # the same machine reads both containers
    "tests/containers/test_hostile.py::test_refused_in_one_sentence": (
        "TORCH-operations_without_end", "PICKLE-operations_without_end",
    ),
    # the calls of an orbax output are those of the one with the exchange, and two
    "tests/fuzz/test_faults.py::test_every_call_fails_once": ("orbax-True-False",),
    "tests/reduction/test_match_output.py::test_outputs_come_closer_on_data_not_seen": ("True",),
    "tests/reduction/test_match_output.py::test_sequences_of_outputs_are_matched_at_every_step_that_has_one": ("1",),
    "tests/engine/test_poles.py::test_disturbed_poles_and_inputs_are_found_again": (
        "multi", "delay", "mimo", "bidirectional",
    ),
    "tests/engine/test_poles.py::test_a_state_that_was_allowed_to_be_unstable_stays_as_it_is": ("multi",),
    "tests/engine/test_poles.py::test_the_read_out_has_the_ridge_of_a_calibrated_refit": ("multi",),
    "tests/engine/test_elimination.py::test_cutting_the_arrays_down_on_the_way_changes_nothing": ("multi",),
    "tests/engine/test_elimination.py::test_scores_of_clustered_poles_are_the_errors_of_the_ridge_solutions": (
        "compiled-none", "compiled-diagonal",
    ),
    # two places to stop at are asked about in every run
    "tests/reduction/test_match_output.py::test_what_was_interrupted_goes_on_to_the_very_same_systems": ("30", "110"),
    "tests/verbs/test_verify.py::test_calibration_inputs_given_again_make_a_fit_recomputed": ("last + poles",),
    "tests/docs/test_jax_families.py::test_minimal_lru": ("batch-True-mean",),
    "tests/engine/test_poles.py::test_gradients_agree_with_finite_differences": (
        "paired", "multi-bidirectional", "bidirectional-real",
    ),
    "tests/engine/test_unstable.py::test_h2_elimination_exchange_and_refit_keep_them_and_certify_the_rest": (
        "1.0-paired", "1.0-multi-bidirectional", "1.0-tied",
    ),
    "tests/families/test_mamba.py::test_refits_of_the_whole_model": ("matched-1",),
    "tests/families/test_mega_models.py::test_padding_reaches_nothing": ("softmax-None-2", "laplace-4-2"),
    "tests/engine/test_poles.py::test_a_reduced_layer_gets_better_on_data_it_has_not_seen": ("multi",),
    "tests/engine/test_poles.py::test_a_real_read_out_stays_real": ("<lambda>",),
    "tests/engine/test_selective.py::test_a_refit_answers_better_than_leaving_states_out": ("1",),
    "tests/families/test_mamba.py::test_a_step_at_a_time_says_the_same": ("1",),
    "tests/families/test_s4_sequence_model.py::test_the_command_line_prunes_evaluates_and_sweeps": (
        "DSS", "V0, batch norm after", "low rank",
    ),
    "tests/families/test_mamba_hybrids.py::test_hybrids_are_scored_pruned_and_load_again": (
        "Zamba", "FalconH1", "GraniteMoeHybrid",
    ),
    "tests/families/test_mamba_transformers.py::test_transformers_loads_and_generates": (
        "as it is-mamba", "as it is-mamba2", "refitted-mamba", "refitted-mamba2", "uniform-mamba",
    ),
    "tests/docs/test_jax_families.py::test_s5": ("zoh", "joint C", "both ways", "layer norm, after", "bilinear"),
    "tests/docs/test_jax_families.py::test_event_ssm": ("async", "batch norm, after", "dirac"),
    "tests/docs/test_jax_families.py::test_annotated_s4": ("True-s4d", "False-s4d", "True-dss"),
    "tests/model/test_flax.py::test_a_compact_file_loads_into_the_flax_module_and_answers_as_last_does": (
        "options0-ragged", "options1-ragged",
    ),
    "tests/verbs/test_recipes.py::test_the_bundled_model_is_not_spoken_of_where_others_are_named": ("bench",),
    "tests/evaluation/test_ranking.py::test_a_model_of_one_logit_is_measured_and_gated": ("auroc", "average_precision"),
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
