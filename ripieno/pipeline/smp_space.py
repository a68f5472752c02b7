"""Spaces of networks of smp: their architectures and encoders, checked before a search begins."""

from __future__ import annotations

from ripieno.errors import ModelError, SearchError
from ripieno.models.smp_config import NAMES, smp_config
from ripieno.models.smp_network import encoder_name, import_smp
from ripieno.search.space import Categorical, Space, backbone_names
from ripieno.train.network_trainer import check_hyperparameters


def check_encoders(space: Space) -> None:
    """Raise SearchError, in one line, for an architecture or encoder that there is not.

    The same for an unknown hyperparameter, and a fixed value out of range.
    """
    import_smp()
    names = backbone_names(space)
    if not names:
        raise SearchError(f"space {space.name} names no backbone: add it as a categorical range or a fixed value")
    choice = space.ranges.get("architecture")
    architectures = choice.choices if isinstance(choice, Categorical) else (None,)
    try:
        check_hyperparameters(space.family, dict.fromkeys((*space.ranges, *space.fixed), 0))
        for name in names:
            encoder_name(name)
            for architecture in architectures:
                named = {"backbone": name, **({} if architecture is None else {"architecture": architecture})}
                fixed = {key: value for key, value in space.fixed.items() if key in NAMES}
                smp_config(space.family, {**fixed, **named})
    except ModelError as error:
        raise SearchError(f"space {space.name}: {error}") from error
