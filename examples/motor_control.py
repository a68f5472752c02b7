"""Control an electric motor by an ensemble of agents behind a server, in real time.

    python examples/motor_control.py --hours 0.2

Searches agents for a motor of gym-electric-motor (extra `rl`), selects, serves and controls. The motor does not wait:
while a decision is under way, it runs on with the action before, a step each control period. Printed are the times of
decisions, the share that is in time, and the return against that of a motor that waits. The motor's own period is a
ten-thousandth of a second, which no request over HTTP can hold: `--period` sets a slower one.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

import ripieno
from ripieno.environments import make_environment
from ripieno.server import Client, start_in_thread

MOTOR = "gem:Cont-CC-PermExDc-v0"


def main(words: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", default=MOTOR)
    parser.add_argument("--run", default="motor-run", help="run folder; an existing one is resumed")
    parser.add_argument("--hours", type=float, default=0.2)
    parser.add_argument("--trials", type=int, help="maximum number of configurations")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--pool", default="local")
    parser.add_argument("--steps", type=int, default=1000, help="decisions to make")
    parser.add_argument("--period", type=float, nargs="+", default=[0.001, 0.002, 0.005], help="seconds")
    options = parser.parse_args(words)

    library = ripieno.tune(
        options.environment,
        options.run,
        task="policy",
        hours=options.hours,
        trials=options.trials,
        epochs=options.epochs,
        pool=options.pool,
    )
    ensemble = ripieno.select(library)[-1]
    returns = ensemble.returns["test"]
    print(f"{len(ensemble.members)} agents by {ensemble.combiner}: mean return {np.mean(returns):.1f} on test seeds")
    bundle = ripieno.allocate(library, ensemble, max_benches=4)

    with start_in_thread(bundle) as server, Client(server.url) as client:
        environment = make_environment(options.environment)
        control(client, environment, options.steps, math.inf)  # the first requests are slower
        for period in (math.inf, *options.period):
            reward, times = control(client, environment, options.steps, period)
            median, slow = (1000 * float(np.quantile(times, q)) for q in (0.5, 0.99))
            decided = f"a decision takes {median:.2f} ms, 99 of 100 at most {slow:.2f} ms"
            if math.isinf(period):
                print(f"a motor that waits: reward {reward:.4f} a step; {decided}")
                continue
            in_time = float(np.mean(np.array(times) <= period))
            print(f"a period of {1000 * period:g} ms: reward {reward:.4f} a step, {in_time:.1%} in time; {decided}")


def control(client: Client, environment: object, steps: int, period: float) -> tuple[float, list[float]]:
    """Control for `steps` decisions; return the mean reward of a step, and the seconds of each decision.

    With a finite `period`, the former action is held for the periods that a decision takes beyond the first.
    """
    observation, _ = environment.reset(seed=1)
    action, rewards, times = None, [], []
    for _ in range(steps):
        began = time.perf_counter()
        decided = client.infer(observation[None], output="action")[0]
        times.append(time.perf_counter() - began)
        late = 0 if math.isinf(period) or action is None else math.ceil(times[-1] / period) - 1
        for step in range(late + 1):
            action = decided if step == late else action
            observation, reward, ended, cut, _ = environment.step(action)
            rewards.append(reward)
            if ended or cut:
                observation, _ = environment.reset()
                break
    return float(np.mean(rewards)), times


if __name__ == "__main__":  # workers import this file and must not run the command
    main()
