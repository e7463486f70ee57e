/** Seconds between the first and the last chunk below which they came as one, and tell nothing about the speed. */
const MEASURABLE = 0.02;

/** What the chunks of one streamed answer add up to. Knows no page, no network and no clock. */
export class Answer {
    content = '';
    reasoning = '';
    calls = [];
    finish = null;
    usage = null;
    #sent;
    #first = null;
    #last = null;

    /** `sent` and every `now` are milliseconds of the same clock. */
    constructor(sent) {
        this.#sent = sent;
    }

    /** Takes a chunk in and returns what it added: {content, reasoning, calls}, the last one the calls that changed. */
    take(chunk, now) {
        this.usage = chunk.usage ?? this.usage;
        const choice = chunk.choices?.[0];
        if (!choice) {
            return {content: '', reasoning: '', calls: []};
        }
        const delta = choice.delta ?? {};
        const added = {
            content: delta.content ?? '',
            reasoning: delta.reasoning_content ?? delta.reasoning ?? '',
            calls: (delta.tool_calls ?? []).map(part => this.#takeCall(part)),
        };
        this.content += added.content;
        this.reasoning += added.reasoning;
        this.finish = choice.finish_reason ?? this.finish;
        if (added.content || added.reasoning || added.calls.length) {
            this.#first ??= now;
        }
        this.#last = now;
        return added;
    }

    #takeCall({index = this.calls.length, id, function: part = {}}) {
        const call = (this.calls[index] ??= {id: '', type: 'function', function: {name: '', arguments: ''}});
        call.id ||= id ?? '';
        call.function.name ||= part.name ?? '';
        call.function.arguments += part.arguments ?? '';
        return call;
    }

    /** Calls that can be carried out: those of an answer that was neither broken off nor cut by its length. */
    get wholeCalls() {
        return this.finish && this.finish !== 'length' ? this.calls : [];
    }

    /** The message that stands for this answer in the next request; null if there is nothing to remember. */
    get message() {
        const calls = this.wholeCalls;
        if (!this.finish && !this.content) {
            return null;
        }
        return {
            role: 'assistant',
            content: this.content || (calls.length ? null : ''),
            ...(this.reasoning && {reasoning_content: this.reasoning}),
            ...(calls.length && {tool_calls: calls}),
        };
    }

    /** Milliseconds until the first text, thought or call; null before it. */
    get firstAfter() {
        return this.#first === null ? null : this.#first - this.#sent;
    }

    /**
     * Tokens per second after the first one; null where the server did not count or all came at once.
     * The tokens of a call are made long before the call is sure and can be seen: with calls all the time counts.
     */
    get rate() {
        const tokens = (this.usage?.completion_tokens ?? 0) - 1;
        const seconds = (this.#last - (this.calls.length ? this.#sent : this.#first)) / 1000;
        return this.#first !== null && tokens > 0 && seconds > MEASURABLE ? tokens / seconds : null;
    }
}
