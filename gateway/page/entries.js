/** What stands in the conversation. Text of models, tools and servers only ever becomes text nodes, never HTML. */

/** An element with properties and children; strings among them become text. */
export function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
}

export class UserEntry {
    constructor(text) {
        this.root = element('article', {className: 'user'}, element('h2', {}, 'You'), element('p', {className: 'text'}, text));
    }

    /** Says that the server has not answered this, so it is not part of what is sent next. */
    strike() {
        this.root.classList.add('struck');
    }
}

/** An answer, while it is written and after. */
export class AnswerEntry {
    #content = new Text();
    #reasoning = new Text();
    #thought = element('details', {className: 'reasoning', hidden: true},
        element('summary', {}, 'Reasoning'), element('p', {className: 'text'}, this.#reasoning));
    #calls = new Map();
    #note = element('p', {className: 'note'});

    constructor(model) {
        this.root = element('article', {className: 'assistant'},
            element('h2', {}, model), this.#thought, element('p', {className: 'text content'}, this.#content), this.#note);
        this.root.ariaBusy = 'true';
    }

    /** `added` is what Answer.take returns. */
    show({content, reasoning, calls}) {
        this.#content.appendData(content);
        this.#reasoning.appendData(reasoning);
        if (reasoning && this.#thought.hidden) {
            this.#thought.hidden = false;
            this.#thought.open = true;
        }
        calls.forEach(call => this.#entryOf(call).show());
    }

    #entryOf(call) {
        if (!this.#calls.has(call)) {
            this.#calls.set(call, new CallEntry(call));
            this.#note.before(this.#calls.get(call).root);
        }
        return this.#calls.get(call);
    }

    /** The answer has ended: says how. Returns the entries of those calls that wait for a result. */
    end(answer, note, failed) {
        this.root.ariaBusy = 'false';
        this.#thought.open = false;
        this.#note.textContent = [note, ...figures(answer)].filter(Boolean).join(' · ');
        this.#note.classList.toggle('error', failed);
        return answer.wholeCalls.map(call => this.#entryOf(call));
    }
}

/** A call of a tool, and the field for what the tool says. */
export class CallEntry {
    #call;
    #name = new Text();
    #arguments = new Text();
    #result = null;

    constructor(call) {
        this.#call = call;
        this.root = element('section', {className: 'call'},
            element('h3', {}, 'Calls ', element('code', {}, this.#name)), element('pre', {}, this.#arguments));
    }

    show() {
        this.#name.data = this.#call.function.name;
        this.#arguments.data = this.#call.function.arguments;
    }

    /** Lets the user say what the tool would; `submit` is called when that is to be sent. */
    ask(submit) {
        this.#result = element('textarea', {className: 'result', rows: 2, placeholder: '{"temperature": 14}'});
        const button = element('button', {type: 'button', onclick: submit}, 'Send results');
        this.root.append(element('label', {}, `Result of ${this.#call.function.name}`, this.#result), button);
        return this;
    }

    /** The message with the result. */
    get message() {
        return {role: 'tool', tool_call_id: this.#call.id, content: this.#result.value};
    }

    /** The result is part of the conversation now. */
    close() {
        this.#result.readOnly = true;
        this.root.querySelector('button').remove();
    }
}

function figures({firstAfter, rate, usage}) {
    const cached = usage?.prompt_tokens_details?.cached_tokens;
    return [
        firstAfter !== null && `first token after ${Math.round(firstAfter)} ms`,
        rate && `${rate.toFixed(1)} tokens/s`,
        usage && `${usage.prompt_tokens} tokens in${cached ? ` (${cached} cached)` : ''}, ${usage.completion_tokens} out`,
    ];
}
