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
    Raises LdmError where the loss is no longer finite.
    """
    for batches in loader:
        rate = learning_rate(step, config)
        loss = engine.backward(batches)  # gradient of the mean loss over the labels of all ranks
        norm = engine.update(rate)
        step += 1
        log.add(batches, loss, norm)

        last = step == config.steps or stop.agreed(step)
        save = last or step % config.checkpoint_every == 0
        if save or step % config.log_every == 0:
            log.write(step, rate)
        if save:
            log.flush()  # never a checkpoint of a step that is not known to be good
            checkpoints.save(step, engine)
            log.restart_clock()
        if last:
            checkpoints.finish(engine)
            return
