"""Prints a whole configuration as TOML: the daemon's own sections, then one for every plugin that has settings."""

from __future__ import annotations

from pydock.daemon import builtins, config, resolve, toml


def document(settings: config.Settings, *, documented: bool) -> str:
    """Return ``settings`` and the section of every plugin as TOML that ``config.load`` reads back to the same."""
    parts = [toml.write(settings, documented=documented)]
    modules = builtins.known()
    config.check_known(settings, modules)
    for registration in sorted(builtins.load(modules, settings.disabled_plugins), key=lambda one: one.uri):
        wanted = resolve.signature(registration).config
        if wanted is None:
            continue
        section = toml.write(settings.section(registration.uri, wanted), f'plugins."{registration.uri}"', documented=documented)
        parts.append(f"# {(wanted.__doc__ or '').strip().splitlines()[0]}\n{section}" if documented else section)
    return "\n".join(parts)
