"""The table of faults: what is injected, how often, and what must hold then."""

import errno
from functools import partial
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGSTOP, SIGTERM

from seenet.training import checkpoint
from tests.core.hostile import BOMBS
from tests.faults import checkpoints, files, numbers, preload, training, using
from tests.faults.fault import Fault

PICKLES = len(files.payloads(Path()))

# fmt: off
FAULTS = [
    Fault("T1.moment", "`kill -9` at a random moment, once or twice, with 0 and 2 workers, "
          "then --resume: the result is that of an uninterrupted run",
          50, training.killed),
    Fault("T1.call", "`kill -9` in the n-th call that changes a file: the first 50 calls, "
          "then random ones",
          100, training.killed_at_a_call, preload.missing),
    Fault("T2", "1, 2, 4 ranks, micro-batches, any first step: every step has the same samples",
          100, training.any_number_of_ranks),
    Fault("T3", "resume at step 10 and at step 900,000: the next step comes after the same time",
          5, training.resume_time),
    Fault("T4.process", "SIGTERM to a run or its process group: exit 143 after the step, saved, "
          "no process left; then --resume",
          20, partial(training.signalled, SIGTERM, 143)),
    Fault("T4.launcher", "SIGTERM to torchrun's launcher, two ranks: "
          "both exit 143 after the step, saved",
          20, partial(training.on_two_ranks, SIGTERM, "launcher", {143}, training.SECONDS)),
    Fault("T4.rank", "SIGTERM to one of two ranks: both exit 143 after the step, saved",
          20, partial(training.on_two_ranks, SIGTERM, "rank", {143}, training.SECONDS)),
    Fault("T5.once", "Ctrl-C: saved, exit 130; then --resume: "
          "the result is that of an uninterrupted run",
          10, partial(training.signalled, SIGINT, 130)),
    Fault("T5.twice", "Ctrl-C twice in a step of a minute: exit 130 at once",
          10, training.interrupted_twice),
    Fault("T6", "a second process on a run: exit 75 with host and pid; "
          "the lock of a killed process is taken over",
          10, training.second_process),
    Fault("T8.killed", "`kill -9` to one of two ranks: the other rank ends too",
          10, partial(training.on_two_ranks, SIGKILL, "rank", {75, 143}, training.SECONDS)),
    Fault("T8.frozen", "`kill -STOP` to one of two ranks: "
          "the other exits with 75 within the time-out",
          4, partial(training.on_two_ranks, SIGSTOP, "rank", {75}, training.FROZEN_SECONDS)),
    Fault("T7.one", "a loss or gradient becomes NaN or Inf at a step: exit 5 before the update, "
          "everything saved is finite",
          20, partial(numbers.not_finite, 0)),
    Fault("T7.ranks", "the same on one of two ranks: both exit 5 before the update",
          8, partial(numbers.not_finite, 2)),
    Fault("T7.rate", "a learning rate of 200 to 1,000 with weight decay 1: exit 5, "
          "everything saved is finite",
          10, numbers.exploding),
    Fault("T9", "every label of every batch is void: the loss is 0, the weights stay finite",
          len(numbers.LOSSES), numbers.nothing_labelled),
    Fault("T10", "batches of one picture, each variant and peer: trains with a warning, "
          "or is refused before training if a norm sees one point",
          len(numbers.NETWORKS), numbers.one_image),
    Fault("C1", "a checkpoint contains only safetensors and JSON",
          1, checkpoints.only_plain_files),
    Fault("C2.moment", "`kill -9` at a random moment of saving, TMPDIR on another file system",
          200, partial(checkpoints.killed_at_a_moment, checkpoint)),
    Fault("C2.call", "`kill -9` in the n-th call that changes a file, for every n of a save",
          200, partial(checkpoints.call_fails, checkpoint, 0), preload.missing),
    Fault("C3.tmpfs", "a tmpfs that fills up while a checkpoint is saved",
          50, checkpoints.full_disk, checkpoints.cannot_mount),
    Fault("C3.enospc", "the n-th call of a save reports a full disk",
          200, partial(checkpoints.call_fails, checkpoint, errno.ENOSPC), preload.missing),
    Fault("C3.eio", "the n-th call of a save fails with EIO",
          200, partial(checkpoints.call_fails, checkpoint, errno.EIO), preload.missing),
    Fault("C4", "one byte of a checkpoint changed",
          1000, partial(checkpoints.flipped_byte, checkpoint)),
    Fault("C5", "the newest one or two checkpoints damaged: --resume reports it "
          "and ends as an uninterrupted run",
          20, files.damaged_checkpoint),
    Fault("C6", "a pickled file that runs code, given to `seenet import`: nothing runs, exit 4",
          PICKLES, files.imported),
    Fault("C7", "`training.start_from` with another network: "
          "what fits is loaded, the rest is listed",
          len(files.OTHERS), files.other_network),
    Fault("D1.found", f"{using.ERRORS} errors of 21 kinds planted among {using.PAIRS} pairs: "
          "each is found once",
          using.ERRORS, using.planted_error),
    Fault("D1.quiet", "no other error is reported there, and each unchanged pair has its notes",
          1, using.no_false_alarm),
    Fault("D1.command", "`seenet data check` on 100 pairs with 21 errors: exit 6, "
          "all errors in its JSON",
          10, using.data_check),
    Fault("D2", f"at least {using.RATE} pairs of 360 x 480 per second and core",
          5, using.rate),
    Fault("D3", "a picture of any format, truncated or with changed bytes: "
          "a picture, or one line with its name",
          1000, using.damaged_image),
    Fault("D4", f"a decompression bomb: refused within {using.SECONDS:.0f} s "
          f"and {using.MEBIBYTES} MiB",
          len(BOMBS), using.bomb),
    Fault("E1", "`seenet eval` killed up to three times: the same bytes, "
          "and never an incomplete result file (E3)",
          20, partial(using.killed, "eval", 4)),
    Fault("E2", "`seenet eval` on 2 and 4 processes: the same bytes as on 1",
          2, using.sharded),
    Fault("E3", "a file is where the pictures should go: no result file; "
          "then the same command continues",
          1, using.whole_or_none),
    Fault("P3", f"one bad file among {using.MANY}: the others are done, exit 3, "
          "the bad one is named",
          len(using.BAD), using.one_bad_file),
    Fault("P5", "`seenet predict` killed up to three times and run again: "
          "the same folder, byte for byte",
          20, partial(using.killed, "predict", 3)),
    Fault("P6", "pictures of 1 x 1 and of every size up to 90 x 90: a mask of that size",
          50, using.any_size),
    Fault("X5.hostile", "hostile ONNX files: refused in one line, without a crash",
          len(files.EDITS), files.hostile_onnx),
    Fault("X5.damaged", "an ONNX bundle truncated or with one byte changed: "
          "refused in one line, or intact metadata",
          1000, files.damaged_onnx),
    Fault("Z.model", "a .safetensors model with a damaged header: exit 4 in one line, "
          "or no effect",
          100, files.hostile_model),
    Fault("B.T1.moment", "the same kills, with a plain loop and `torch.save`",
          10, training.plain_loop_killed, must_fail=True),
    Fault("B.C2.moment", "the same kills, with plain `torch.save`",
          50, partial(checkpoints.killed_at_a_moment, checkpoints.Plain), must_fail=True),
    Fault("B.C3.eio", "the same EIO, with plain `torch.save`", 20,
          partial(checkpoints.call_fails, checkpoints.Plain, errno.EIO), preload.missing,
          must_fail=True),
    Fault("B.C4", "the same flipped bytes, with `torch.load(weights_only=False)`",
          100, partial(checkpoints.flipped_byte, checkpoints.Plain), must_fail=True),
    Fault("B.C6", "the same pickled files, with `torch.load(weights_only=False)`",
          PICKLES, files.loaded_plainly, must_fail=True),
]
