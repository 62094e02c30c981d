"""The provider kinds that plugins offer, and making a provider from a configuration.

Plugins are found through the entry-point group "mofa" and loaded one by one: a plugin that cannot
be imported, implements no hook, raises in its hook or claims a taken name becomes a record in
``ProviderRegistry.problems`` and a warning in the log, and the others work. A plugin registers
wholly or not at all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import pluggy
from pydantic import ValidationError

from mofa_gguf.contract.base import explain_validation
from mofa_gguf.contract.errors import ConfigError, ProviderNotSupported
from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.host import hookspecs
from mofa_gguf.host.errors import KindTaken
from mofa_gguf.host.llm_config import LLMConfig
from mofa_gguf.host.names import did_you_mean, listed
from mofa_gguf.host.plugins import (
    PluginProblem,
    describe_plugin,
    distribution_of,
    identity_of,
    import_plugin,
    one_line,
    reason_of,
)

log = logging.getLogger(__name__)

ProviderFactory = Callable[[LLMConfig], LLMProvider]

_OWN_DISTRIBUTION = "mofa-gguf"
_APPLICATION = "the application"


@dataclass(frozen=True)
class ProviderEntry:
    """A registered provider kind; distribution and version are None outside a plugin."""

    kind: str
    aliases: tuple[str, ...] = ()
    description: str = ""
    distribution: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class _Source:
    """Who is registering."""

    description: str = _APPLICATION
    distribution: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class _Registration:
    entry: ProviderEntry
    factory: ProviderFactory
    source: str


class ProviderRegistry:
    """Provider kinds by name and alias.

    A new registry is empty: ``discover`` fills it from the installed plugins, ``register`` adds
    one kind. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._plugins = pluggy.PluginManager(hookspecs.PROJECT_NAME)
        self._plugins.add_hookspecs(hookspecs)
        self._registrations: dict[str, _Registration] = {}
        self._names: dict[str, str] = {}
        self._problems: list[PluginProblem] = []
        self._tried: set[tuple[str, str, str]] = set()
        self._source = _Source()

    @property
    def problems(self) -> tuple[PluginProblem, ...]:
        """The plugins that are not in use, with the reasons."""
        return tuple(self._problems)

    def register(
        self,
        kind: str,
        factory: ProviderFactory,
        *,
        aliases: Iterable[str] = (),
        description: str = "",
        source: str | None = None,
    ) -> None:
        """Offer a provider kind.

        Args:
            kind: the name a configuration's ``provider`` key chooses it by.
            factory: makes a provider from an ``LLMConfig``. It should refuse keys it does not know.
            aliases: other names of the kind.
            description: one line for listings.
            source: who registers, for error sentences; the plugin, where a plugin does.

        Raises:
            KindTaken: another source has the kind or one of the aliases; nothing is registered.
            ConfigError: a name is empty, or the factory cannot be called.
        """
        aliases = tuple(dict.fromkeys(alias for alias in aliases if alias != kind))
        for name in (kind, *aliases):
            if not isinstance(name, str) or not name.strip():
                raise ConfigError(f"a provider kind must have a name, not {name!r}", field="kind")
        if not callable(factory):
            raise ConfigError(
                f"the factory of the provider kind {kind!r} is a {type(factory).__name__}; "
                "give a callable that takes an LLMConfig",
                field="factory",
            )
        with self._lock:
            who = source or self._source.description
            for name in (kind, *aliases):
                if name in self._names:
                    holder = self._registrations[self._names[name]].source
                    raise KindTaken(name, holder=holder, claimant=who)
            entry = ProviderEntry(
                kind, aliases, description, self._source.distribution, self._source.version
            )
            self._registrations[kind] = _Registration(entry, factory, who)
            self._names.update(dict.fromkeys((kind, *aliases), kind))

    def register_plugin(self, plugin: object, *, name: str | None = None) -> None:
        """Use a plugin module or object that is not installed, such as one in a test.

        Raises:
            ConfigError: it implements no hook, or wrongly; nothing of it is registered.
            KindTaken: it claims a name that another source has.
            Exception: whatever its hook raises.
        """
        name = name or str(getattr(plugin, "__name__", type(plugin).__name__))
        with self._lock:
            self._use_plugin(plugin, name, _Source(f"the plugin {name!r}"))

    def discover(self) -> ProviderRegistry:
        """Load every installed plugin that was not tried before; returns the registry itself.

        Nothing a plugin does raises from here: look at ``problems``.
        """
        # Ours first: no plugin takes the name of a provider that comes with the package.
        found = sorted(
            entry_points(group=hookspecs.PROJECT_NAME),
            key=lambda point: (distribution_of(point)[0] != _OWN_DISTRIBUTION, identity_of(point)),
        )
        with self._lock:
            for point in found:
                if identity_of(point) not in self._tried:
                    self._tried.add(identity_of(point))
                    self._load(point)
        return self

    def kinds(self) -> list[ProviderEntry]:
        """Every registered kind, by name."""
        with self._lock:
            return [registration.entry for _, registration in sorted(self._registrations.items())]

    def create(self, config: LLMConfig) -> LLMProvider:
        """Make the provider that a configuration asks for.

        Raises:
            ProviderNotSupported: no such kind (``known`` has the kinds), or a module it needs is
                missing.
            ConfigError: the factory refused the options.
            LLMError: whatever else the factory raises.
        """
        with self._lock:
            registration = self._registrations.get(self._names.get(config.provider, ""))
        if registration is None:
            raise self._unknown_kind(config.provider)
        kind = registration.entry.kind
        try:
            provider = registration.factory(config)
        except ValidationError as error:
            field, problem = explain_validation(error)
            raise ConfigError(f"provider {kind!r}: {problem}", field=field) from error
        except ImportError as error:
            raise ProviderNotSupported(
                f"provider {kind!r} of {registration.source} cannot be used, an import failed: "
                f"{error}",
                provider=kind,
            ) from error
        if not isinstance(provider, LLMProvider):
            raise ProviderNotSupported(
                f"the factory of provider {kind!r} of {registration.source} returned a "
                f"{type(provider).__name__}, which is no LLMProvider",
                provider=kind,
            )
        return provider

    def _unknown_kind(self, name: str) -> ProviderNotSupported:
        known = [entry.kind for entry in self.kinds()]
        message = (
            f"there is no provider kind {name!r}{did_you_mean(name, self._names)}; "
            f"known kinds: {listed(known)}"
        )
        if self._problems:
            message += f". Plugins that failed to load: {'; '.join(map(str, self._problems))}"
        return ProviderNotSupported(message, provider=name, known=known)

    def _load(self, point: EntryPoint) -> None:
        distribution, version = distribution_of(point)
        source = _Source(describe_plugin(point.name, distribution, version), distribution, version)
        try:
            self._use_plugin(import_plugin(point), f"{distribution}:{point.name}", source)
        # A plugin is foreign code: whatever it raises must not cost the user the other plugins.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            problem = PluginProblem(
                point.name, distribution, version, reason_of(error), error.__cause__ or error
            )
            self._problems.append(problem)
            log.warning("MoFA plugin not in use: %s", problem)

    def _use_plugin(self, plugin: object, name: str, source: _Source) -> None:
        before = dict(self._registrations), dict(self._names), self._source
        self._source = source
        kept = False
        try:
            self._call_plugin(plugin, name)
            kept = True
        finally:
            if kept:
                self._source = before[2]
            else:
                self._registrations, self._names, self._source = before
                if self._plugins.is_registered(plugin):
                    self._plugins.unregister(plugin)

    def _call_plugin(self, plugin: object, name: str) -> None:
        if self._plugins.is_registered(plugin):
            raise ConfigError("the same module is already in use as another plugin")
        try:
            self._plugins.register(plugin, name)
            self._plugins.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise ConfigError(f"it implements a hook wrongly: {one_line(error)}") from error
        if not self._plugins.get_hookcallers(plugin):
            raise ConfigError(
                "it implements no MoFA hook; mark mofa_register_providers(registry) with "
                "mofa_gguf.host.hookimpl"
            )
        others = [other for other in self._plugins.get_plugins() if other is not plugin]
        call = self._plugins.subset_hook_caller("mofa_register_providers", others)
        call(registry=self)
