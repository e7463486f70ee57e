"""The engine as its shell sees it: `receive` a request, and responses come out of its channel.

In: input tensors and a Channel. Out: responses, sent by the courier thread.
Three threads: the stepper forwards, the courier sends, the sweeper looks for callers that have gone. `receive` never
blocks and never raises. With nothing to do all three sleep.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from . import session
from .answer import Answer, check_standard, check_wanted
from .batcher import SelfBatching, parts_of
from .courier import Courier
from .errors import RequestError
from .request import TOP_LOG_PROBS, Limits, Request, Tensors, parse
from .response import Channel, Mailbox, Response
from .runner import Runner
from .scheduler import Stats
from .sequence import Progress, Sequence, Status
from .session import Command, Member, Sessions
from .settings import Settings

SWEEP_INTERVAL = 0.1
"""Seconds between two looks for cancelled requests and dead sessions (contract E), two updates of the gauges (F)."""

_log = logging.getLogger(__name__)


class Engine:
    """`checkpoint` is what hello tells callers; `publish` gets the stats when they are due."""

    def __init__(self, runner: Runner | SelfBatching, settings: Settings, checkpoint: str | None = None,
                 publish: Callable[[Stats], None] = lambda stats: None):
        parts = parts_of(runner, settings, checkpoint)
        self._scheduler, self._guided = parts.batcher, parts.guides
        self._tokens_per_block = parts.tokens_per_block
        self._adapters = parts.adapters
        self.limits = replace(limits_of(runner, settings), guide_types=self._guided.types)
        self._settings = settings
        self._checkpoint = checkpoint
        self._publish = publish
        self._sessions = Sessions(settings.session_timeout_ms / 1e3, settings.poll_wait_ms / 1e3)
        self._courier = Courier(_mailbox)
        self._numbers = itertools.count(1)
        self._answers: dict[Answer, None] = {}
        self._by_id: dict[str, Answer] = {}
        self._watch = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=target, name=name, daemon=True)
                         for target, name in ((self._step, "stepper"), (self._sweep, "sweeper"))]

    def start(self) -> None:
        self._report(self._scheduler.stats())
        self._courier.start()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads; what still runs is answered with an error."""
        self._closed = True
        self._scheduler.close()
        self._wake_sweeper()
        for thread in self._threads:
            thread.join()
        self._guided.close()
        self._courier.post(self._scheduler.abort("the engine is shutting down"))
        self._courier.close()

    def receive(self, tensors: Tensors, channel: Channel, parameters: Mapping[str, Any] | None = None) -> None:
        """One Triton request. `parameters` are its request parameters. Errors go through the channel."""
        try:
            self._dispatch(tensors, channel, parameters or {})
        except Exception as error:
            self._courier.send(channel, Response(error=_reason(error, channel)))

    def _dispatch(self, tensors: Tensors, channel: Channel, parameters: Mapping[str, Any]) -> None:
        if "session_command" in tensors:
            self._commands[session.command(tensors)](self, tensors, channel)
        elif "stop" in tensors and tensors["stop"].reshape(-1)[:1].any():
            self._stop(channel)
        else:
            _check_parameters(parameters)
            self._generate(tensors, channel)

    # The standard contract

    def _generate(self, tensors: Tensors, channel: Channel) -> None:
        if missing := check_wanted(channel.wanted):
            raise RequestError(missing)
        requests = parse(tensors, self.limits, next(self._numbers))
        check_standard(requests)
        adapters = self._take_adapters(requests)
        answer = Answer(channel, len(requests))
        answer.expect(self._sequences(answer, requests, adapters))
        with self._watch:
            self._answers[answer] = None
            if channel.request_id:
                self._by_id[channel.request_id] = answer
            self._watch.notify_all()
        self._guided.prepare(answer.sequences, lambda error: self._begin(answer, error))

    def _begin(self, answer: Answer, error: Exception | None) -> None:
        """Its guides are compiled, or one of them cannot be. By now it may have been cancelled."""
        error = error or self._enqueue(answer.sequences)
        if error:
            self._courier.post([Progress(answer.sequences[0], Status.ERROR, error=_reason(error, answer.channel))])

    def _stop(self, channel: Channel) -> None:
        if not channel.request_id:
            raise RequestError("Cannot stop a request without a request id")
        with self._watch:
            answer = self._by_id.get(channel.request_id)
        if answer:
            self._scheduler.cancel(answer.sequences)
        self._courier.send(channel, Response())

    # The session extension

    def _hello(self, tensors: Tensors, channel: Channel) -> None:
        text = json.dumps({
            "version": session.VERSION, "max_seq_len": self.limits.max_seq_len,
            "max_batch_size": self._settings.max_batch_size, "vocab_size": self.limits.vocab_size,
            "checkpoint": self._checkpoint, "poll_wait_ms": self._settings.poll_wait_ms,
            "session_timeout_ms": self._settings.session_timeout_ms, "top_log_probs": TOP_LOG_PROBS,
            "tokens_per_block": self._tokens_per_block, "guide_types": list(self._guided.types),
            "lora_adapters": dict(self._adapters.names),
        })
        nothing = session.nothing()
        self._courier.send(channel, Response({**nothing.outputs, "session_texts": np.array([[text.encode()]], object)}))

    def _submit(self, tensors: Tensors, channel: Channel) -> None:
        requests = parse(tensors, self.limits, next(self._numbers))
        session.check(requests)
        adapters = self._take_adapters(requests)
        with self._courier.lock() as now:
            member = self._sessions.member(tensors, now)
            sequences = self._sequences(member, requests, adapters)
            member.session.add(member.number, sequences)
        self._guided.prepare(sequences, lambda error: self._answer_submit(member, sequences, channel, error))

    def _answer_submit(self, member: Member, sequences: list[Sequence], channel: Channel,
                       error: Exception | None) -> None:
        """Its guide is compiled, or cannot be. By now it may have been cancelled: it is accepted all the same."""
        error = error or self._enqueue(sequences)
        with self._courier.lock() as now:
            member.session.answer(member.number, not error, now)
        self._courier.send(channel, Response(error=_reason(error, channel)) if error else session.nothing())
        self._wake_sweeper()

    def _poll(self, tensors: Tensors, channel: Channel) -> None:
        with self._courier.lock() as now:
            self._courier.mark(self._sessions.poll(tensors, channel, now))
        self._wake_sweeper()

    def _cancel(self, tensors: Tensors, channel: Channel) -> None:
        with self._courier.lock():
            sequences = self._sessions.find(tensors)
        self._scheduler.cancel(sequences)
        self._courier.send(channel, session.nothing())

    _commands = {Command.HELLO: _hello, Command.SUBMIT: _submit, Command.POLL: _poll, Command.CANCEL: _cancel}

    def _take_adapters(self, requests: list[Request]) -> list[Any]:
        """One for each request, or None. Raises RequestError."""
        return [None if request.lora is None else self._adapters.take(request.lora) for request in requests]

    def _enqueue(self, sequences: list[Sequence]) -> Exception | None:
        try:
            self._scheduler.submit(sequences)
        except Exception as error:
            return error
        return None

    def _sequences(self, owner: Any, requests: list[Request], adapters: list[Any]) -> list[Sequence]:
        """Raises RequestError for more of them than there could ever be room for, before they are made."""
        self._scheduler.check_room(sum(request.num_sequences for request in requests))
        now = time.monotonic_ns()
        return [Sequence(owner, request, row, index, self.limits.vocab_size, now, adapter)
                for row, (request, adapter) in enumerate(zip(map(_without_weights, requests), adapters, strict=True))
                for index in range(request.num_sequences)]

    # The threads

    def _step(self) -> None:
        interval, published = self._settings.step_interval_ms / 1e3, 0.0
        while self._scheduler.wait():
            started = time.monotonic()
            self._courier.post(self._scheduler.step())
            stats = self._scheduler.stats()
            if not stats.active or started - published >= SWEEP_INTERVAL:
                self._report(stats)
                published = started
            pause = interval - (time.monotonic() - started)
            if pause > 0:
                time.sleep(pause)

    def _report(self, stats: Stats) -> None:
        """When nothing is left, the last step's figures no longer hold."""
        if not stats.active:
            stats = replace(stats, scheduled=0, context=0, used_blocks=0, context_tokens=0)
        try:
            self._publish(stats)
        except Exception:
            _log.exception("the metrics could not be published")

    def _wake_sweeper(self) -> None:
        with self._watch:
            self._watch.notify_all()

    def _sweep(self) -> None:
        while self._watched():
            time.sleep(SWEEP_INTERVAL)
            self._forget_done()
            for answer in list(self._answers):
                if _is_gone(answer.channel):
                    self._scheduler.cancel(answer.sequences)
            with self._courier.lock() as now:
                dead = self._sessions.expire(now)
            self._scheduler.cancel(dead)

    def _watched(self) -> bool:
        """Waits until there is a caller that could go away; False once closed."""
        with self._watch:
            self._watch.wait_for(lambda: self._closed or self._answers or len(self._sessions))
            return not self._closed

    def _forget_done(self) -> None:
        with self._watch:
            self._answers = {answer: None for answer in self._answers if not answer.done}
            self._by_id = {key: answer for key, answer in self._by_id.items() if not answer.done}


def limits_of(runner: Runner | SelfBatching, settings: Settings) -> Limits:
    """The model's lengths, narrowed by the settings. A prompt leaves room for one token."""
    max_seq_len = min(settings.max_seq_len or runner.max_seq_len, runner.max_seq_len)
    return Limits(
        vocab_size=runner.vocab_size, max_seq_len=max_seq_len,
        max_input_len=min(settings.max_input_len or max_seq_len - 1, max_seq_len - 1),
        context_logits=settings.gather_context_logits, generation_logits=settings.gather_generation_logits,
        exclude_input=settings.exclude_input_in_output,
    )


def _without_weights(request: Request) -> Request:
    """What a sequence keeps for as long as it runs."""
    return request if request.lora is None else replace(request, lora=None)


def _is_gone(channel: Channel) -> bool:
    """Whether a caller has left. One that cannot be asked is as good as gone; the others are asked all the same."""
    try:
        return channel.is_cancelled()
    except Exception:
        _log.exception("a caller could not be asked whether it has left")
        return True


def _mailbox(progress: Progress) -> Mailbox:
    owner = progress.sequence.owner
    return owner.session if isinstance(owner, Member) else owner


def _reason(error: Exception, channel: Channel) -> str:
    """The text for the caller; a defect of the engine goes into its log."""
    if isinstance(error, RequestError):
        return str(error)
    _log.error("request %s could not be taken in", channel.request_id, exc_info=error)
    return "Encountered an internal error while reading the request"


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    kind = parameters.get("request_type", "context_and_generation")
    if kind != "context_and_generation":
        raise RequestError(f"request_type {kind}: disaggregated serving is not supported")
