"""Views under privacy: no row acts on another one's."""

import pytest
import torch

from orchestra_strategy import FedRotPredStrategy, OrchestraPrivateStrategy
from orchestra_strategy.data import (
    VIEWS,
    ColourViews,
    TableViews,
    build_row_wise_views,
    load_local,
    one_hot_columns,
)
from orchestra_strategy.errors import DataError, ParameterError, PrivacyError
from tests.strategies.test_private import RECORD, USER, party

ONE_HOT = ((2, 3, 4), (6, 7))


def rows(batch=9, features=9):
    return torch.randn(batch, features, generator=torch.Generator().manual_seed(1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def marginals(**options):
    return TableViews(replacement="marginals", **options)


def test_a_row_more_changes_nothing_for_those_before_it():
    x, views = rows(), marginals(one_hot=ONE_HOT)
    for fewer, more in zip(views(x[:-1], generator()), views(x, generator())):
        assert torch.equal(fewer, more[:-1])
    coupled = TableViews()
    assert not torch.equal(coupled(x[:-1], generator()).x1, coupled(x, generator()).x1[:-1])


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_a_row_of_other_content_changes_nothing_for_the_others(name):
    shape = {"grey": (1, 8, 8), "colour": (3, 16, 16), "table": (9,)}[name]
    x = torch.rand(7, *shape, generator=generator(3))
    other = x.clone()
    other[3] = torch.rand(shape, generator=generator(4))
    views = build_row_wise_views(name)
    kept = [0, 1, 2, 4, 5, 6]
    for seed in range(20):
        for a, b in zip(views(x, generator(seed)), views(other, generator(seed))):
            assert torch.equal(a[kept], b[kept])
    coupled = TableViews(corruption=0.9)
    if name == "table":
        a, b = (coupled(v, generator(0)).x1[kept] for v in (x, other))
        assert not torch.equal(a, b)


def test_values_are_of_the_marginals():
    x = torch.full((4000, 9), 50.0)
    found = marginals(one_hot=ONE_HOT, corruption=1.0, noise=0.0)(x, generator()).x1
    numbers = found[:, [0, 1, 5, 8]]
    assert numbers.mean().abs() < 0.03
    assert numbers.std().item() == pytest.approx(1, abs=0.02)
    for group in ONE_HOT:
        category = found[:, list(group)]
        assert (category.sum(dim=1) == 1).all()
        assert ((category == 0) | (category == 1)).all()
        assert category.mean(dim=0).tolist() == pytest.approx(
            [1 / len(group)] * len(group), abs=0.03
        )


def test_a_category_is_replaced_as_a_whole_and_at_the_rate():
    x = torch.full((4000, 9), 50.0)
    for views in (marginals(one_hot=ONE_HOT, noise=0.0), TableViews(one_hot=ONE_HOT, noise=0.0)):
        source = x if views.row_wise else torch.arange(4000.0)[:, None].expand(-1, 9)
        changed = views(source, generator()).x2 != source
        assert changed.float().mean().item() == pytest.approx(0.3, abs=0.02)
        for group in ONE_HOT:
            together = changed[:, list(group)]
            assert (together == together[:, :1]).all()


def test_targets_are_even_and_noise_has_its_deviation():
    found = marginals(corruption=0.0, noise=0.5)(torch.zeros(4000, 4), generator())
    assert torch.bincount(found.pretext_target, minlength=4).min() > 900
    assert found.x1.std().item() == pytest.approx(0.5, abs=0.02)
    assert found.x1.isfinite().all()


@pytest.mark.parametrize("one_hot", [[[1, 1]], [[0, 1], [1, 2]], [[-1]], "ab", [3], [[]], [[True]]])
def test_what_is_no_set_of_columns_is_refused(one_hot):
    with pytest.raises(ParameterError, match="`one_hot` to be lists of column numbers"):
        TableViews(one_hot=one_hot)


def test_columns_that_are_not_there_and_an_unknown_form_are_refused():
    with pytest.raises(DataError, match="up to number 9, got F=9; columns count from 0"):
        marginals(one_hot=((8, 9),))(rows(), generator())
    with pytest.raises(ParameterError, match="`replacement` to be 'rows' or 'marginals', got 'x'"):
        TableViews(replacement="x")


def test_the_places_of_categories_come_with_a_csv(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("age,job,married\n1,a,yes\n2,b,no\n")
    categories = {"job": ["a", "b", "c"], "married": ["yes", "no"]}
    data = load_local(path, columns=["age", "job", "married"], categories=categories)
    assert data.one_hot == ((1, 2, 3), (4, 5))
    assert data.one_hot == one_hot_columns(["age", "job", "married"], categories)
    assert (data.samples[:, [1, 2, 3]].sum(axis=1) == 1).all()


class Mixing:
    """Views of one's own that say nothing of rows."""

    def __call__(self, x, generator):
        return ColourViews()(x, generator)


class OwnViews(FedRotPredStrategy):
    def views(self):
        return Mixing()


@pytest.mark.parametrize("options", [USER, RECORD])
def test_privacy_takes_the_row_wise_form_by_itself_and_refuses_the_other(options):
    private = party(OrchestraPrivateStrategy, views="table", **options)
    assert private.objective.views == marginals()
    with pytest.raises(PrivacyError, match=r"row-wise .*'table' with replacement='rows'.*out"):
        party(views="table", view_options={"replacement": "rows"}, **options)


def test_own_views_must_say_that_they_are_row_wise_for_records():
    with pytest.raises(PrivacyError, match=r"`views` of an objective to be row-wise .* got Mixing"):
        party(OwnViews, **RECORD)
    party(OwnViews, **USER)
