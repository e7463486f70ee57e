/**
 * Server-sent events, out of bytes that may be cut anywhere: within a line, a line's end or a character.
 * Rules: html.spec.whatwg.org, "Interpreting an event stream".
 */
export class EventReader {
    #decoder = new TextDecoder();
    #line = '';
    #data = [];

    /** The data of each event that these bytes complete. Comments, such as `: keep-alive`, are no events. */
    push(bytes) {
        const events = [];
        const text = this.#line + this.#decoder.decode(bytes, {stream: true});
        // A carriage return at the very end may be the first half of a line's end.
        const whole = text.endsWith('\r') ? text.length - 1 : text.length;
        const lines = text.slice(0, whole).split(/\r\n|\r|\n/);
        this.#line = lines.pop() + text.slice(whole);
        for (const line of lines) {
            if (line.startsWith('data:')) {
                this.#data.push(line.slice(line[5] === ' ' ? 6 : 5));
            } else if (line === '' && this.#data.length) {
                events.push(this.#data.join('\n'));
                this.#data = [];
            }
        }
        return events;
    }
}
