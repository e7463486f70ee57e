/** What the page asks its server: models, answers, metrics. Errors come as sentences that can be shown. */

import {EventReader} from './events.js';

const page = new URL('.', document.baseURI);
const [prefix] = document.documentElement.dataset.prefixes.split('|');
let key = '';

/** What OpenAI's clients call the base URL: the first of the gateway's prefixes, wherever the page lies. */
export const base = new URL(`.${prefix}`, page).href.replace(/\/$/, '');

export class Failure extends Error {
    constructor(message, status = 0) {
        super(message);
        this.status = status;
    }
}

/** The key is kept here and nowhere else: it is gone with the page. */
export function setKey(text) {
    key = text.trim();
}

export function hasKey() {
    return key !== '';
}

export async function models() {
    const listed = await (await ask(`${base}/models`)).json();
    return listed.data.map(model => model.id);
}

export async function metrics() {
    return (await ask(new URL('metrics', page))).text();
}

/** The chunks of an answer as they arrive. It ends only with a whole answer; everything else is a Failure. */
export async function* chat(request, signal) {
    const response = await ask(`${base}/chat/completions`, {
        method: 'POST',
        headers: {'Content-Type': 'application/json'},
        body: JSON.stringify(request),
        signal,
    });
    const events = new EventReader();
    const stream = response.body.getReader();
    try {
        for (;;) {
            const {done, value} = await next(stream);
            if (done) {
                throw new Failure('The connection broke off before the answer was complete.');
            }
            for (const data of events.push(value)) {
                if (data === '[DONE]') {
                    return;
                }
                yield chunkOf(data);
            }
        }
    } finally {
        stream.cancel().catch(() => {}); // what is left of it, if anything, is of no use
    }
}

async function ask(url, options = {}) {
    const headers = {...options.headers, ...(key && {Authorization: `Bearer ${key}`})};
    let response;
    try {
        response = await fetch(url, {...options, headers, cache: 'no-store'});
    } catch (error) {
        throw isAbort(error) ? error : new Failure('The server cannot be reached.');
    }
    if (!response.ok) {
        throw await refusal(response);
    }
    return response;
}

async function next(stream) {
    try {
        return await stream.read();
    } catch (error) {
        throw isAbort(error) ? error : new Failure('The connection broke off before the answer was complete.');
    }
}

export function isAbort(error) {
    return error.name === 'AbortError';
}

async function refusal(response) {
    const body = await response.json().catch(() => null); // a proxy in between may answer with anything
    const message = body?.error?.message ?? 'The server refused the request.';
    const wait = response.headers.get('Retry-After');
    return new Failure(`${message} (${response.status}${wait ? `, try again in ${wait} s` : ''})`, response.status);
}

function chunkOf(data) {
    let chunk;
    try {
        chunk = JSON.parse(data);
    } catch {
        throw new Failure('The server sent an event that is no JSON.');
    }
    if (chunk.error) {
        throw new Failure(chunk.error.message ?? 'The server reported an error.');
    }
    return chunk;
}
