"""Which model a request means: the one place that knows what names there are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from typing import NamedTuple

from backend import Backend, State
from preprocessing.errors import Kind, OpenAIError, invalid, model_not_found
from preprocessing.listing import Listed
from preprocessing.wire import shown

LISTING_PATIENCE = 1.0  # seconds that the list of models waits for engines that have not answered yet
NO_EMBEDDINGS = OpenAIError(
    Kind.NOT_FOUND, "This server has no embedding model; its operator can set one up (parameter embedding_engine)."
)


class Target(NamedTuple):
    """What a request's `model` stands for.

    Attributes:
        name: its full name, as answers tell it; None: the request has none.
        adapter: what it calls a LoRA adapter of the model, which may have none of that name.
    """

    backend: Backend
    name: str | None = None
    adapter: str | None = None


class Directory:
    """The models of the configuration.

    Args:
        backends: at least one.

    Attributes:
        only: the model, if there is one only.

    Raises:
        ValueError: a name stands for two things.
    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = tuple(backends)
        self.only = self.backends[0] if len(self.backends) == 1 else None
        names = {name for backend in self.backends for name in backend.names}
        for adapter in (each for backend in self.backends for each in backend.adapter_names):
            if adapter in names:
                raise ValueError(f"wanted names of models that no LoRA adapter has, found '{adapter}'")

    @property
    def loaded(self) -> list[Backend]:
        return [backend for backend in self.backends if backend.state is State.LOADED]

    def writer(self, name: object, lora_model: object = None) -> Target:
        """The model that generates text; whether clients can have it now its `check` says.

        Args:
            name: the `model` of a request, whatever it is; None: the request has none.
            lora_model: likewise; the other way to name an adapter.

        Raises:
            OpenAIError: 404 if there is none of that name, 400 if it is no name.
        """
        found = Target(self._implied(name, writes=True)) if not isinstance(name, str) else self._named(name)
        if not isinstance(lora_model, str) or found.adapter == lora_model:
            return found
        if found.adapter is not None:
            raise invalid("'lora_model' names another LoRA adapter than 'model'.", "lora_model")
        separator = found.backend.settings.lora_separator
        return Target(found.backend, found.name and f"{found.name}{separator}{lora_model}", lora_model)

    def _named(self, name: str) -> Target:
        for backend in self.backends:
            if name in backend.names:
                return Target(backend, name)
        bases = [
            (known + backend.settings.lora_separator, backend) for backend in self.backends for known in backend.names
        ]
        found = [(base, backend) for base, backend in bases if name.startswith(base)]
        if not found:
            raise model_not_found(name)
        base, backend = max(found, key=lambda each: len(each[0]))  # a model's name may begin with another one's
        return Target(backend, name, name.removeprefix(base))

    def embedder(self, name: object) -> Backend:
        """The model that makes embeddings; see `writer`."""
        names = [known for backend in self.loaded for known in backend.embedding_names]
        if not names:
            raise NO_EMBEDDINGS
        if not isinstance(name, str):
            return self._implied(name, writes=False)
        for backend in self.backends:
            if name in backend.embedding_names:
                return backend
        there = ", ".join(f"'{known}'" for known in names)
        raise OpenAIError(
            Kind.MODEL_NOT_FOUND,
            f"The model '{name[:128]}' does not exist or has no embeddings; with embeddings: {there}.",
            "model",
        )

    def called(self, name: str) -> Backend:
        """The model of that name, loaded or not.

        Raises:
            OpenAIError: 404.
        """
        for backend in self.backends:
            if name in (*backend.names, *backend.embedding_names):
                return backend
        raise model_not_found(name)

    def listed(self) -> Iterator[Listed]:
        """What clients can have now. Waits a moment for engines that nobody has asked yet."""
        loaded = self.loaded
        connections = [backend.connect() for backend in loaded]
        # From the first question on: an engine that hangs does not keep all waiting who ask after that.
        asked_at = max((backend.asked_at for backend in loaded), default=0.0)
        wait(connections, max(0.0, asked_at + LISTING_PATIENCE - time.monotonic()))
        for backend in loaded:
            yield from backend.listed()

    def _implied(self, name: object, *, writes: bool) -> Backend:
        """Of one model nobody needs to say the name where that is optional; a wrong one the body's check finds."""
        names = () if self.only is None else self.only.names if writes else self.only.embedding_names
        if self.only is not None and names:
            return self.only
        raise invalid(
            "Missing required field 'model'." if name is None else f"'model' must be a string; got {shown(name)}.",
            "model",
        )
