"""A party that is killed costs the round under way, wherever in its work or its writing that is.

By default a few moments are tried. ``ORCHESTRA_KILLS=20`` tries as many random ones per party, and
every point of writing with both numbers of checkpoints that are kept; it takes some ten minutes.
"""

import os
import random
import shutil
import signal
import time

import pytest
from safetensors.numpy import load_file

from orchestra_strategy.checkpoints.round_files import RoundFiles
from tests.cluster.party_process import Job
from tests.federated.checkpoint_runs import assert_same, flat

pytestmark = pytest.mark.cluster
KILLS = int(os.environ.get("ORCHESTRA_KILLS", "0"))
ROUNDS = 12
RUN = {"rounds": ROUNDS, "checkpoint_dir": "kept-{party}", "keep_checkpoints": 1}
# Of a round with one kept checkpoint a party renames the temporary file, renames the prepared one,
# and removes the old one.
STEPS = 3
LIMIT = 60


def final(job):
    """All that parties keep after the last round, and the encoders that they have written."""
    found = {}
    for name in job.names:
        files = RoundFiles(job.folder / f"kept-{name}" / f"party-{name}", name)
        assert files.committed()[-1] == ROUNDS
        found |= flat(files.read(ROUNDS)[1]["party"], name)
        arrays = load_file(job.folder / f"out-{name}" / "encoder.safetensors")
        found |= {f"{name}/encoder/{k}": array for k, array in arrays.items()}
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody interrupts: what comes of it, and its seconds from the first round."""
    job = Job(tmp_path_factory.mktemp("whole"), **RUN)
    try:
        job.start().wait_for("kept-bob/**/round-*")
        start = time.monotonic()
        assert set(job.end(seconds=LIMIT).values()) == {0}, job.log("alice")
        return final(job), time.monotonic() - start
    finally:
        job.close()


def go_on(job, victim, expected):
    """All parties end, resume, and have what they would have had."""
    other = next(name for name in job.names if name != victim)
    assert job.end(seconds=LIMIT)[other] in (0, 4), job.log(other)
    begun = [list(job.folder.glob(f"kept-{name}/**/round-*")) for name in job.names]
    if all(begun):
        job.start(more=["--resume"])
    else:  # killed in the first round, or before it
        for name in job.names:
            shutil.rmtree(job.folder / f"kept-{name}", ignore_errors=True)
        job.start()
    assert set(job.end(seconds=LIMIT).values()) == {0}, [job.log(name) for name in job.names]
    assert_same(final(job), expected)


POINTS = [pytest.param("bob", 1, step, marks=pytest.mark.slow) for step in range(STEPS)]
if KILLS:
    POINTS = [(v, k, s) for v in ("alice", "bob") for k in (1, 2) for s in range(STEPS)]


@pytest.mark.parametrize(("victim", "keep", "step"), POINTS)
def test_killed_at_a_point_of_writing(job, whole, victim, keep, step):
    other = "bob" if victim == "alice" else "alice"
    made = job(**{**RUN, "keep_checkpoints": keep})
    made.start(other).start(victim, dies=5 * STEPS + step)
    go_on(made, victim, whole[0])
    assert made.log(victim).count("Traceback") == 0


MOMENTS = [(v, n) for v in ("alice", "bob") for n in range(KILLS)] or [("alice", 0)]


@pytest.mark.parametrize(("victim", "number"), MOMENTS)
def test_killed_at_a_random_moment(job, whole, victim, number):
    moment = random.Random(f"{victim} {number}").random() * whole[1]
    made = job(**RUN).start()
    made.wait_for("kept-bob/**/round-*")
    time.sleep(moment)
    if made.processes[victim].exitcode is None:
        made.send(victim, signal.SIGKILL)
    go_on(made, victim, whole[0])
