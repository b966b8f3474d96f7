"""Images whose paths stand in a column: read at their party, below its storage alone."""

import numpy as np
import pyarrow.orc as orc
import pytest
from PIL import Image
from secretflow.component.core import comp_eval

from orchestra_strategy import session
from orchestra_strategy.component import plugin
from orchestra_strategy.errors import DataError
from tests.component.inputs import PARTIES, describe, embed_call, storage, train_call

plugin()
CALL = {
    "input/input_ds/image_column": ["path"],
    "images/mode": "L",
    "images/image_size": 8,
    "network/backbone": "conv4",
}


@pytest.fixture(scope="module", autouse=True)
def _simulation():
    with session(PARTIES, mode="debug"):
        yield


def write(folder, party, paths=None):
    """Write images of a party and a table with their paths."""
    (folder / party).mkdir()
    rng = np.random.default_rng(PARTIES.index(party))
    names = [f"{party}/{n}.png" for n in range(24)]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (12, 10), np.uint8)).save(folder / name)
    lines = ["id,path,y", *(f"{n},{path},0" for n, path in enumerate(paths or names))]
    (folder / f"{party}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return describe(party, {"path": "str"})


def test_images_are_trained_on_and_embedded(tmp_path):
    tables = [write(tmp_path, party) for party in PARTIES]
    model, _ = comp_eval(train_call(tables, **CALL), storage(tmp_path), None).outputs
    (table,) = comp_eval(embed_call(model, tables[1]), storage(tmp_path), None).outputs
    rows = orc.read_table(str(tmp_path / table.data_refs[0].uri)).to_pandas()
    assert rows.shape == (24, 2 + 512)
    assert rows.iloc[:, 2:].to_numpy(float).std(axis=0).max() > 0


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("../secret.png", "to have paths below the storage's folder, got another text in row 2"),
        ("/etc/passwd", "to have paths below the storage's folder, got another text in row 2"),
        ("bob/link.png", "the path in row 2 to lie in the storage's folder, got a link"),
        ("bob/none.png", "`row 2` to be the path of an image in the storage, got FileNotFound"),
        ("bob.csv", "Expected `row 2` to be an image"),
        ("", "to have paths below the storage's folder, got another text in row 2"),
    ],
    ids=["up", "absolute", "link", "missing", "no-image", "empty"],
)
def test_a_path_that_leads_nowhere_good_is_refused(tmp_path, path, match):
    inside = tmp_path / "storage"
    inside.mkdir()
    names = [f"bob/{n}.png" for n in range(24)]
    tables = [write(inside, "alice"), write(inside, "bob", [names[0], path, *names[2:]])]
    Image.new("L", (12, 10)).save(tmp_path / "secret.png")
    (inside / "bob" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=f"party `bob`: .*{match}"):
        comp_eval(train_call(tables, **CALL), storage(inside), None)


def test_a_column_without_texts_is_refused(tmp_path):
    tables = [write(tmp_path, party) for party in PARTIES]
    numbers = describe("bob", {"path": "float"})
    with pytest.raises(DataError, match="`path` of bob to hold paths of images, got float"):
        comp_eval(train_call([tables[0], numbers], **CALL), storage(tmp_path), None)
