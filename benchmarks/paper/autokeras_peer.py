"""AutoKeras on arrays, for MINUTES: table4.py runs it with the Python of a separate environment.

    PYTHON autokeras_peer.py ARRAYS.npz MINUTES TRIALS SEED THREADS

All settings but the number of trials are AutoKeras' defaults, as in the paper. It uses our validation split, never its
own. At the deadline the search stops at the end of the batch and the best saved network predicts. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def main() -> None:
    """Search, predict the test images, print."""
    path, minutes, trials, seed, threads = sys.argv[1], float(sys.argv[2]), *(int(v) for v in sys.argv[3:6])
    import autokeras
    import keras
    import keras_tuner
    import numpy as np
    import tensorflow as tf

    # AutoKeras 3.0 passes class counts as NumPy integers, which newer versions of Keras reject
    made = keras.layers.Dense.__init__
    keras.layers.Dense.__init__ = lambda self, units, *rest, **more: made(self, int(units), *rest, **more)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    with np.load(path) as arrays:
        data = {name: arrays[name] for name in arrays.files}
    deadline = time.time() + 60 * minutes

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        """Callback that ends the whole search at the deadline."""

        epochs = 0

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
            Stop.epochs += 1

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
            if time.time() > deadline:
                raise keras_tuner.errors.FatalError("deadline reached")

    with tempfile.TemporaryDirectory() as folder:
        count = int(data["train_labels"].max()) + 1
        search = autokeras.ImageClassifier(count, max_trials=trials, directory=folder, seed=seed, overwrite=True)
        ended = "all trials"
        try:
            search.fit(
                data["train"],
                data["train_labels"],
                validation_data=(data["valid"], data["valid_labels"]),
                callbacks=[Stop()],
                verbose=0,
            )
        except keras_tuner.errors.FatalError:
            ended = "deadline"
        done = [t for t in search.tuner.oracle.trials.values() if t.score is not None]
        answer = {"ended": ended, "trials": len(done), "epochs": Stop.epochs, "version": autokeras.__version__}
        try:
            model = search.tuner.get_best_models(1)[0]
            predicted = np.asarray(model.predict(data["test"], verbose=0)).argmax(1)
            answer["predicted"] = predicted.tolist()
        except Exception as error:  # any error is reported in the table
            answer["error"] = f"{type(error).__name__}: {error}"[:300]
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
