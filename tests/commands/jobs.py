"""A small job, and the command run as a user does."""

from orchestra_strategy import cli

JOB = """\
rounds: 2
model:
  backbone: conv4
  in_channels: 1
parameters:
  batch_size: 16
  local_epochs: 1
  lr: 1e-2
  num_global_clusters: 8
  num_local_clusters: 4
  memory_size: 32
"""


def write_job(folder, text=JOB):
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def status(*arguments):
    """The exit code, of the parser or of the command."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        return stopped.code
