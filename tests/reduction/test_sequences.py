from types import SimpleNamespace

import numpy as np
import pytest

from lastcli.errors import InputError
from lastcli.evaluation.data import Split
from lastcli.reduction.sequences import divide, minibatch, source_of


def loaded(n=12, length=10, *, lengths=None, features=2, pair=False, tokens=False):
    """Every value says which sequence and which step it comes from."""
    index, step = np.meshgrid(np.arange(n), np.arange(length), indexing="ij")
    x = (100 * index + step).astype(np.int32 if tokens else np.float32)
    if not tokens:
        x = np.repeat(x[..., None], features, axis=2)
    if pair:
        x = np.stack([x, x + 5000], axis=1)
    return source_of(Split(x, lengths=lengths).batches(5), pair=pair)


def test_padded_examples_are_left_out():
    assert len(loaded(n=12)) == 12


def test_held_back_sequences_are_others_than_the_fitted_ones():
    fit, held = divide(loaded(n=20), 0.2, by_time=False)
    assert (len(fit), len(held)) == (16, 4)
    assert not set(fit.index) & set(held.index)


def test_steps_beyond_the_true_length_do_not_count():
    lengths = np.arange(12) % 6 + 4
    weights = loaded(lengths=lengths).rows(np.arange(3)).weights
    np.testing.assert_array_equal(weights, [[1] * n + [0] * (10 - n) for n in (4, 5, 6)])


def test_no_sequences_are_refused():
    with pytest.raises(InputError, match="needs calibration inputs, and there are none"):
        source_of(SimpleNamespace(split=Split(np.zeros((0, 10, 2), "f4"))))


def test_few_sequences_hold_back_their_last_steps():
    fit, held = divide(loaded(n=1), 0.2, by_time=True)
    np.testing.assert_array_equal(fit.rows(np.arange(1)).weights, [[1] * 8 + [0] * 2])
    np.testing.assert_array_equal(held.rows(np.arange(1)).weights, [[0] * 8 + [1] * 2])
    with pytest.raises(InputError, match="at least two"):
        divide(loaded(n=1), 0.2, by_time=False)


def test_the_last_steps_are_those_of_each_sequence_itself():
    """Padding is not held back: it says nothing of when to stop."""
    fit, held = divide(loaded(n=3, lengths=np.array([10, 5, 1])), 0.2, by_time=True)
    early, late = (part.rows(np.arange(3)).weights for part in (fit, held))
    np.testing.assert_array_equal(late, [[0] * 8 + [1] * 2, [0] * 4 + [1] + [0] * 5, [1] + [0] * 9])
    np.testing.assert_array_equal(early + late, [[1] * n + [0] * (10 - n) for n in (10, 5, 1)])


def test_tokens_are_spliced_and_never_mixed():
    lengths = np.arange(12) % 6 + 4
    sequences = loaded(tokens=True, lengths=lengths)
    batch = minibatch(sequences, 200, np.random.default_rng(0))
    sources = batch.x // 100
    np.testing.assert_array_equal(batch.x % 100, np.tile(np.arange(10), (len(batch.x), 1)))
    changes = (np.diff(sources, axis=1) != 0).sum(axis=1)
    assert changes.max() == 1
    for source, length in zip(sources, batch.lengths):
        # the tail brings its own length, and the head reaches no further than either sequence
        assert length == lengths[source[-1]]
        if (source != source[-1]).any():
            assert np.flatnonzero(source != source[-1]).max() < min(lengths[source[0]], lengths[source[-1]])


def test_minibatches_hold_originals_splices_and_mixtures():
    batch = minibatch(loaded(n=64), 64, np.random.default_rng(0))
    step = np.arange(10)
    whole = (batch.x[:, :, 0] - step) / 100
    pure = (whole == whole.round()).all(axis=1)
    constant = np.isclose(whole, whole[:, :1], atol=1e-4).all(axis=1)
    assert (pure & constant).any()
    assert (pure & ~constant).any()
    assert (~pure & constant).any()
    assert not (~pure & ~constant).any()


def test_both_documents_of_a_pair_are_spliced_with_the_same_partner():
    lengths = np.full((12, 2), 10)
    batch = minibatch(loaded(pair=True, tokens=True, lengths=lengths), 100, np.random.default_rng(1))
    sources = batch.x % 5000 // 100
    np.testing.assert_array_equal(batch.x[:, 1] // 5000, 1)
    for one in sources:
        assert set(np.unique(one[0])) == set(np.unique(one[1])) or len(np.unique(one)) == 2
    assert batch.lengths.shape == (12, 2)
