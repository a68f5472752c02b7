"""Portfolio of configurations that did well in past searches, and the curves from which a sampler learns.

Theory of operation. Each past search trained other configurations, so a forest of its results predicts what every
candidate would have lost there at its last epoch; where the search trained a candidate so far, its own loss counts.
Losses are normalised within a search: 0 is the best of its trials, 1 their median, and worse is no worse than that.
Candidates are the best few of each search. The portfolio is greedy (as of auto-sklearn 2, Feurer et al. 2022): each
next configuration is the one that lowers most the mean over searches of the best normalised loss so far. Where none
lowers it, the one with the lowest mean is next.

Pure: the searches decide, no clock, no state; the forests have constant seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ripieno.search.encoding import Encoding
from ripieno.search.forest import TREES, Forest
from ripieno.search.objectives import scaled
from ripieno.search.space import Space, distributions
from ripieno.search.warm_start import PastCurve, PastSearch, PastTrial, WarmStart, alternate, translated, values_key
from ripieno.types import Configuration

SIZE = 16
"""Most configurations of a portfolio."""
TRIALS_SHARE = 0.5
"""Largest share of the trials of a search that its portfolio takes."""
CANDIDATES = 30
"""Best configurations of each past search among which a portfolio is chosen, about; fewer of very many searches."""
POOL = 1500
"""Candidates of all searches together, at most."""
CURVES = 1500
"""Curves of all searches together that a sampler learns from, at most."""
Losses = NDArray[np.float64]


def greedy_portfolio(losses: Losses, size: int) -> list[int]:
    """Return the columns of a portfolio of at most `size`, first the one that is best alone.

    `losses` (data sets, configurations) are normalised: each next column lowers most the mean over rows of the best
    loss so far; on a tie the one with the lowest mean, then the first.
    """
    count = losses.shape[1]
    means = losses.mean(axis=0)
    best = np.full(len(losses), np.inf)
    chosen: list[int] = []
    left = np.ones(count, bool)
    while len(chosen) < min(size, count):
        after = np.minimum(best[:, None], losses).mean(axis=0).round(12)  # equal sums in another order stay equal
        column = int(np.lexsort((np.arange(count), means, after, ~left))[0])
        chosen.append(column)
        left[column] = False
        best = np.minimum(best, losses[:, column])
    return chosen


def normalized(values: Losses, best: float, median: float) -> Losses:
    """Return `values` so that `best` is 0 and `median` 1; what is worse is 1, and what is better 0."""
    return np.clip((values - best) / max(median - best, 1e-12), 0.0, 1.0)


class PastModel:
    """Forest of a past search in terms of `space`: what any configuration would have lost at its last epoch.

    `trials` are those that fit the space; it has none without a loss.
    """

    def __init__(self, space: Space, past: PastSearch) -> None:
        self.name = past.name
        self.encoding = Encoding(distributions(space))
        told = translated(space, past)
        known = [(n, r) for n, t in enumerate(told) for r in t.results]
        losses = [r.loss for _, r in known if r.loss is not None]
        self.trials: tuple[PastTrial, ...] = told if losses else ()
        if not losses:
            return
        self.last = max(r.epoch for _, r in known if r.loss is not None)
        values = scaled(losses)
        mean, spread = float(values.mean()), float(values.std()) or 1.0
        of_losses = iter((values - mean) / spread)
        worst = float(values.max() - mean) / spread
        standard = [worst if r.loss is None else float(next(of_losses)) for _, r in known]
        epochs = [self.last if r.loss is None else r.epoch for _, r in known]
        self._points = [(n, epoch, z) for (n, _), epoch, z in zip(known, epochs, standard, strict=True)]
        features = self.encoding.features(self.encoding.rows(t.values for t in told))
        rows = np.column_stack([features[[n for n, _, _ in self._points]], np.log([e for _, e, _ in self._points])])
        self._forest = Forest(rows, np.array(standard), TREES, seed=len(standard))
        finals = self._predict(features)  # of trials that reached the last epoch their own losses: trees are full grown
        self.order = np.argsort(finals, kind="stable")
        """numbers of the trials, best first"""
        self._best, self._median = float(finals.min()), float(np.median(finals))
        self.losses = normalized(finals, self._best, self._median)
        """normalised, by trial"""

    def _predict(self, features: Losses) -> Losses:
        epochs = np.full(len(features), np.log(self.last))
        return np.asarray(self._forest.predict(np.column_stack([features, epochs])).mean(axis=0), float)

    def predict(self, features: Losses) -> Losses:
        """Return the normalised losses of configurations by their `features`."""
        return normalized(self._predict(features), self._best, self._median)

    def curves(self, most: int, epochs: int) -> tuple[PastCurve, ...]:
        """Return at most `most` standardised curves, spread over the trials; the last epoch becomes `epochs`."""
        step = max(1.0, len(self.trials) / max(1, most))
        chosen = {int(n * step) for n in range(min(most, len(self.trials)))}
        points: dict[int, list[tuple[float, float]]] = {n: [] for n in sorted(chosen)}
        for n, epoch, z in self._points:
            if n in points:
                points[n].append((epoch / self.last * epochs, z))
        return tuple(PastCurve(self.trials[n].values, tuple(found)) for n, found in points.items())


def portfolio_size(trials: int | None) -> int:
    """Return the number of configurations of a portfolio for a search of at most `trials` trials; None: no bound."""
    return SIZE if trials is None else max(1, min(SIZE, int(TRIALS_SHARE * trials)))


def rated_portfolio(models: Sequence[PastModel], size: int) -> list[tuple[Configuration, list[float]]]:
    """Return the portfolio of past searches, best first: at most `size` values of ranges.

    Each is with its normalised loss in every search of `models` that has trials.
    """
    models = [model for model in models if model.trials]
    if not models:
        return []
    most = max(size, min(CANDIDATES, POOL // len(models)))
    best = (model.trials[n].values for model in models for n in model.order[:most])
    candidates = {values_key(values): values for values in best}
    column = {key: n for n, key in enumerate(candidates)}
    configurations = list(candidates.values())
    encoding = models[0].encoding
    features = encoding.features(encoding.rows(configurations))
    table = np.stack([model.predict(features) for model in models])
    for row, model in zip(table, models, strict=True):
        for trial, loss in zip(model.trials, model.losses, strict=True):
            if (known := column.get(values_key(trial.values))) is not None:
                row[known] = loss
    return [(configurations[c], table[:, c].tolist()) for c in greedy_portfolio(table, size)]


def make_warm_start(
    models: Sequence[PastModel],
    epochs: int,
    trials: int | None,
    built_in: tuple[str, Sequence[Configuration]] | None = None,
) -> WarmStart:
    """Return the warm start of a search of at most `epochs` epochs a trial and `trials` trials; None: no bound.

    The configurations of a portfolio that is `built_in`, (name, values of ranges), alternate with those of `models`.
    """
    size = portfolio_size(trials)
    name, others = built_in or ("", ())
    own = [values for values, _ in rated_portfolio(models, size)]
    models = [model for model in models if model.trials]
    curves = (curve for model in models for curve in model.curves(CURVES // len(models), epochs))
    sources = (*(model.name for model in models), *([name] if others else []))
    return WarmStart(sources, alternate(own, others)[:size], tuple(curves))
