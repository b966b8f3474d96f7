import re

import numpy as np
import pytest
import torch

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import check_disjoint, labelled_fraction, labelled_subset

TRAIN = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


class TestCheckDisjoint:
    def test_disjoint_rows_pass_although_they_share_values(self):
        assert check_disjoint(TRAIN, TRAIN[:, ::-1]) == 0

    @pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
    def test_overlap_is_refused_with_count_and_first_pair(self, convert):
        test = np.stack([TRAIN[0] + 100, TRAIN[2], TRAIN[0], TRAIN[2]])
        message = re.escape(
            "Expected `train_x` and `test_x` to be disjoint, got 3 of 4 test rows that are also in "
            "train, the first of them train row 2 = test row 1. Split the data again; if these are "
            "different samples that happen to be equal, as in a table with few columns, pass "
            "`allow_duplicates=True`."
        )
        with pytest.raises(DataError, match=message):
            check_disjoint(convert(TRAIN), convert(test))

    def test_first_of_several_equal_train_rows_is_named(self):
        with pytest.raises(DataError, match="train row 0 = test row 0"):
            check_disjoint(np.array([[1, 2], [1, 2]]), np.array([[1, 2]]))

    def test_allowed_duplicates_are_counted(self):
        assert check_disjoint(TRAIN, TRAIN[[0, 0, 1]], allow_duplicates=True) == 3

    def test_memory_layout_does_not_hide_a_row(self):
        # The same values, with the columns of each row's matrix next to one another in memory.
        test = TRAIN.swapaxes(1, 2).copy().swapaxes(1, 2)
        assert check_disjoint(TRAIN, test, allow_duplicates=True) == 3

    def test_negative_zero_is_zero(self):
        assert check_disjoint(np.array([[0.0]]), np.array([[-0.0]]), allow_duplicates=True) == 1

    @pytest.mark.parametrize(
        ("test", "got"),
        [
            (TRAIN.astype(np.float32), "uint8 (2, 2) and float32 (2, 2)"),
            (TRAIN.reshape(3, 4), "uint8 (2, 2) and uint8 (4,)"),
        ],
    )
    def test_rows_that_cannot_be_compared_are_refused(self, test, got):
        with pytest.raises(DataError, match="rows of one dtype and shape, got " + re.escape(got)):
            check_disjoint(TRAIN, test)

    def test_objects_are_refused(self):
        rows = np.array([["a"], [1]], dtype=object)  # their bytes would be addresses
        with pytest.raises(DataError, match="rows to be numeric, got dtype object"):
            check_disjoint(rows, rows)


def draw(y, per_class, seed=0):
    return labelled_subset(y, per_class, np.random.default_rng(seed))


class TestLabelledSubset:
    Y = np.random.default_rng(1).permutation(np.repeat([0, 3, 7], [30, 20, 10]))

    @pytest.mark.parametrize("per_class", [1, 4, 10])
    def test_exact_count_of_each_class(self, per_class):
        rows = draw(self.Y, per_class)
        assert len(set(rows.tolist())) == 3 * per_class
        classes, counts = np.unique(self.Y[rows], return_counts=True)
        assert classes.tolist() == [0, 3, 7]
        assert counts.tolist() == [per_class] * 3

    def test_ascending_int64(self):
        rows = draw(self.Y, 5)
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()

    def test_seed_decides(self):
        assert draw(self.Y, 5, seed=2).tolist() == draw(self.Y, 5, seed=2).tolist()
        assert draw(self.Y, 5, seed=2).tolist() != draw(self.Y, 5, seed=3).tolist()

    def test_smaller_subset_is_within_the_larger(self):
        assert set(draw(self.Y, 1)) < set(draw(self.Y, 5)) < set(draw(self.Y, 10))

    def test_every_row_of_a_class_is_drawn_equally_often(self):
        counts = np.zeros(8)
        for seed in range(400):
            counts[draw(np.zeros(8, int), 2, seed)] += 1
        # 400 draws of 2 in 8: mean 100, standard deviation sqrt(400 * 1/4 * 3/4) = 8.7.
        assert np.abs(counts - 100).max() < 4 * 8.7

    def test_torch_labels(self):
        assert draw(torch.from_numpy(self.Y), 5).tolist() == draw(self.Y, 5).tolist()

    def test_small_class_is_named_with_both_numbers(self):
        message = "at least `per_class` = 11 rows, got 10 of class 7. Ask for fewer"
        with pytest.raises(DataError, match=message):
            draw(self.Y, 11)

    def test_no_labels(self):
        with pytest.raises(DataError, match="`y` to have at least one label, got none"):
            draw(np.array([], dtype=int), 1)

    def test_labels_that_are_no_classes(self):
        with pytest.raises(DataError, match="`y` to be integer classes, got float64"):
            draw(np.array([0.0, 1.0]), 1)

    def test_per_class_below_1(self):
        with pytest.raises(ParameterError, match="`per_class` to be at least 1, got 0"):
            draw(self.Y, 0)


class TestLabelledFraction:
    Y = np.random.default_rng(1).permutation(np.repeat([0, 3, 7], [300, 40, 10]))

    def draw(self, fraction, seed=0):
        return labelled_fraction(self.Y, fraction, np.random.default_rng(seed))

    @pytest.mark.parametrize(
        ("fraction", "counts"), [(0.01, [3, 1, 1]), (0.1, [30, 4, 1]), (1.0, [300, 40, 10])]
    )
    def test_fraction_of_each_class_but_at_least_one(self, fraction, counts):
        rows = self.draw(fraction)
        assert (np.diff(rows) > 0).all()
        assert np.unique(self.Y[rows], return_counts=True)[1].tolist() == counts

    def test_smaller_subset_is_within_the_larger(self):
        assert set(self.draw(0.01)) < set(self.draw(0.1)) < set(self.draw(0.5))

    def test_seed_decides(self):
        assert self.draw(0.1, 2).tolist() == self.draw(0.1, 2).tolist()
        assert self.draw(0.1, 2).tolist() != self.draw(0.1, 3).tolist()

    @pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
    def test_what_is_no_fraction_is_refused(self, fraction):
        with pytest.raises(ParameterError, match=r"`fraction` to be in \(0, 1\], got"):
            self.draw(fraction)
