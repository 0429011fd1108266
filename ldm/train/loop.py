"""The training loop, all of it.

The engine owns the model and its optimiser, on one process or a thousand; the loader's batch of
step k is the same however the run got there; nothing in a step waits for the device.
"""

from ldm.config import TrainConfig
from ldm.train.schedule import learning_rate


def train(config: TrainConfig, step: int, engine, loader, log, checkpoints, stop) -> None:
    """Trains from `step` to `config.steps`, or until `stop` asks for an end.

    engine: ldm.train.engine; loader: iterates the micro-batches of steps `step`, `step + 1`, …;
    log: ldm.train.metrics.Log; checkpoints: ldm.train.checkpoint.Checkpoints; stop: below `run`.
    Raises LdmError where more batches than are allowed have no finite gradient.
    """
    due, first = False, True
    for batches in loader:
        rate = learning_rate(step, config)
        loss = engine.backward(batches)  # gradient of the mean loss over the labels of all ranks
        norm = engine.update(rate)
        step += 1
        log.add(batches, loss, norm)
        if first:  # the optimiser has its state now
            checkpoints.prepare(engine)
            first = False

        last = step == config.steps or stop.agreed(step)
        due = due or last or step % config.checkpoint_every == 0
        if due or step % config.log_every == 0:
            log.write(step, rate)
        if due and (log.flush() or last):  # else after the next step that is known to be good
            checkpoints.save(step, engine)
            log.restart_clock()
            due = False
        if last:
            checkpoints.finish(engine)
            return
