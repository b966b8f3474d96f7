"""What 10,000 colour images of 32x32 cost a worker that reads, holds and walks through them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.readers.files import write_cifar_batch, write_image

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ROWS = 10_000
LIMIT_MB = 60

# VmHWM is the peak of the resident memory; writing 5 to clear_refs sets it back to the present.
PROGRAM = """
import json, sys
import numpy as np
import torch
from orchestra_strategy.data import describe_samples, load_local
from orchestra_strategy.rng import SeededStreams
from orchestra_strategy.party.data import PartyData, fingerprint

def megabytes(field):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024

def work(path):
    data = load_local(path)
    report = describe_samples(data.samples)
    party = PartyData.from_host(data.samples)
    fingerprint(party.samples)
    options = dict(batch_size=64, passes=1, party="a", epoch=0, device=torch.device("cpu"))
    options["streams"] = SeededStreams(0)
    seen = sum(len(batch["ids"]) for batch in party.training_batches(0, 1, **options))
    assert party.samples.dtype == np.uint8 and report["dtype"] == "uint8"
    return seen

costs = {}
for kind in sys.argv[2:]:
    work(f"{sys.argv[1]}/small_{kind}")  # whatever is imported and allocated once
    open("/proc/self/clear_refs", "w").write("5")
    before = megabytes("VmRSS")
    assert work(f"{sys.argv[1]}/large_{kind}") == 10_000
    costs[kind] = megabytes("VmHWM") - before
print(json.dumps(costs))
"""


def write_links(path, rows):
    """A hundred different images under many names: links cost no space and little time."""
    for i in range(min(rows, 100)):
        write_image(path / f"{i}.png", size=(32, 32), seed=i)
    for i in range(100, rows):
        os.link(path / f"{i % 100}.png", path / f"{i}.png")


WRITERS = {
    "images": write_links,
    "x.npy": lambda path, rows: np.save(path, np.zeros((rows, 3, 32, 32), np.uint8)),
    "x.npz": lambda path, rows: np.savez(path, x=np.zeros((rows, 3, 32, 32), np.uint8)),
    # The authors' files hold bytes as they are, like protocol 3; Python 3 at 2 writes them as text.
    "batches": lambda path, rows: write_cifar_batch(path / "data_batch_1", rows, protocol=3),
}


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    for name, write in WRITERS.items():
        write(folder / f"small_{name}", 100)
        write(folder / f"large_{name}", ROWS)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), *WRITERS],
        cwd=ROOT,
        # Large arrays go back to the system when they are freed, so that no kind hides another's.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", WRITERS)
def test_ten_thousand_images_cost_at_most_60_mb(costs, kind):
    images_alone = ROWS * 3 * 32 * 32 / 2**20
    assert 0.9 * images_alone < costs[kind] < LIMIT_MB
