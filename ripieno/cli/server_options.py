"""Options of `serve` and `deploy`: one for each setting of `ServerConfig`, and a file with the rest."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ripieno.config import Setting, read_config, settings, update
from ripieno.engine.config import Isolation
from ripieno.server.config import ServerConfig

PANELS = {"engine": "Engine", "patience": "Restarts of workers", "limits": "Limits"}
"""Headings in the help, by the configuration that holds the settings."""
NAMES = {"trusted": "family"}
"""Options that are not named as their setting."""
SETTINGS = {
    NAMES.get(setting.key[-1], "_".join(setting.key).removeprefix("engine_")): setting
    for setting in settings(ServerConfig())
}
"""Settings of a server by option: `limits_body` for the key `limits.body`, without `engine.`."""
ConfigOpt = Annotated[
    Path | None, typer.Option("--config", help="File with settings, TOML or JSON; options overrule it")
]


def _annotation(name: str, setting: Setting) -> Any:
    kinds = {Any: bool, tuple[str, ...]: list[str], Isolation: str}  # the configuration checks the values
    kind = kinds.get(setting.type, setting.type)
    flag = "--" + name.replace("_", "-")
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=setting.help[0].upper() + setting.help[1:],
        show_default=str(setting.default) if setting.default not in (None, False, ()) else False,
        envvar="RIPIENO_TOKEN" if name == "token" else None,
        rich_help_panel=PANELS[setting.key[-2]] if len(setting.key) > 1 else None,
    )
    return Annotated[kind | None, option]


OPTIONS = {"config": ConfigOpt, **{name: _annotation(name, setting) for name, setting in SETTINGS.items()}}


def with_server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with the options of a server, which it receives as `config`, a `ServerConfig`."""

    @functools.wraps(command)
    def wrapper(config: Path | None, **options: Any) -> None:
        values: dict[str, Any] = {}
        for name, setting in SETTINGS.items():
            if (value := options.pop(name)) not in (None, []):
                table = functools.reduce(lambda table, key: table.setdefault(key, {}), setting.key[:-1], values)
                table[setting.key[-1]] = value
        chosen = ServerConfig() if config is None else read_config(ServerConfig(), config)
        command(config=update(chosen, values), **options)

    own = [p for name, p in inspect.signature(command, eval_str=True).parameters.items() if name != "config"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in OPTIONS.items()
    ]
    wrapper.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    return wrapper
