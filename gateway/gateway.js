/**
 * What the gateway decides: how a request is wrapped for Triton's generate_stream, and how the answer is unwrapped.
 * Everything Triton sends through here is ASCII (openai_bls sees to that), so it may be cut at any byte.
 */

import crypto from 'crypto';

const EVENT_END = '\n\n';
const EVENT_START = 'data: ';
// What stands before the text in Triton's answers.
const RESPONSE = ',"response":';
// How an error object of openai_bls begins.
const ERROR_OBJECT = '{"error":';
// Stands for a whole answer that failed after its status was sent; no JSON begins so.
const FAILED = '\u0018';
// Above this a body is not parsed just to tell a nested "stream" from the outermost one.
const MAX_PARSED = 1048576;
// Names that may go into Triton's request id, headers and logs.
const SAFE_NAME = /^[A-Za-z0-9._-]{1,128}$/;
// A member with a name of six letters, perhaps escaped ones, that is true: "stream" is the one that is looked for.
const TRUE_MEMBER = /"(?:[a-z]|\\u00[0-9a-fA-F]{2}){6}"\s*:\s*true/;
// The same, spelled out: what counts where the body is not parsed.
const STREAM_MEMBER = /"stream"\s*:\s*true/;
const RETRY_AFTER = {429: '1', 503: '2'};

// Errors that nginx finds by itself: [type, code, message].
const OWN_ERRORS = {
    400: ['invalid_request_error', null, 'The request is not valid.'],
    401: ['authentication_error', 'invalid_api_key', 'Incorrect API key provided.'],
    404: ['invalid_request_error', 'not_found', 'There is no such route.'],
    405: ['invalid_request_error', 'method_not_allowed', 'This route does not take this method.'],
    408: ['invalid_request_error', 'timeout', 'The request took too long to arrive.'],
    413: ['invalid_request_error', 'content_too_large', 'The request body is too large.'],
    414: ['invalid_request_error', null, 'The URL is too long.'],
    429: ['rate_limit_error', 'queue_full', 'The server has as many requests waiting as it accepts. Try again later.'],
    431: ['invalid_request_error', null, 'The request headers are too large.'],
    500: ['server_error', 'internal_error', 'The server had an error while processing the request.'],
    503: ['server_error', 'service_unavailable', 'The server is not ready. Try again later.'],
};

/** The body for generate_stream: the client's own as one string. */
function wrap(r) {
    let wrapped = {id: r.variables.request_name, endpoint: r.variables.endpoint, ticket: r.variables.ticket};
    try {
        wrapped.request = r.requestText || '';
        return JSON.stringify(wrapped);
    } catch (e) {
        wrapped.request = '\u0000'; // Not UTF-8: a body that is no JSON has the same answer.
        return JSON.stringify(wrapped);
    }
}

/** The question why a request was refused. */
function recall(r) {
    return JSON.stringify({endpoint: 'refusal', request: r.variables.ticket});
}

/** The client's request id if it is harmless, else nginx's own. */
function requestName(r) {
    let sent = r.headersIn['X-Request-ID'];
    return sent && SAFE_NAME.test(sent) ? sent : r.variables.request_id;
}

/** SHA-256 of the API key; keys are only ever compared as hashes, so a comparison's time tells nothing. */
function keyHash(r) {
    let bearer = /^Bearer +(\S+) *$/i.exec(r.headersIn['Authorization'] || '');
    let key = bearer ? bearer[1] : r.headersIn['x-api-key'] || '';
    return crypto.createHash('sha256').update(key).digest('hex');
}

/**
 * Whether the body asks for a stream. Quotes inside JSON strings are escaped, so the tests find members only; parsing tells
 * those of the outermost object from nested ones. A very large body is not parsed, and njs refuses deep nesting.
 */
function wantsStream(body) {
    if (!TRUE_MEMBER.test(body)) {
        return false;
    }
    if (body.length <= MAX_PARSED) {
        try {
            return JSON.parse(body).stream === true;
        } catch (e) {
            // Falls through: nested too deep.
        }
    }
    return STREAM_MEMBER.test(body);
}

/** Response headers: the type that the client expects. The length changes with the wrapping. */
function headers(r) {
    delete r.headersOut['Content-Length'];
    let streams = r.status === 200 && wantsStream(r.requestText || '');
    r.headersOut['Content-Type'] = streams ? 'text/event-stream; charset=utf-8' : 'application/json';
    retryAfter(r, r.status);
}

function retryAfter(r, status) {
    if (RETRY_AFTER[status]) {
        r.headersOut['Retry-After'] = RETRY_AFTER[status];
    }
}

/**
 * Takes the wrapping off Triton's events as they pass; an unfinished one waits for its rest. openai_bls keeps its responses
 * small, because what waits is copied with every buffer that arrives.
 */
function unwrap(r, data, flags) {
    let waiting = r.variables.unfinished_event;
    let text = waiting ? waiting + data : data;
    if (r.status !== 200) {
        unwrapError(r, text, flags);
        return;
    }
    let out = '';
    let start = 0;
    let end;
    while ((end = text.indexOf(EVENT_END, start)) >= 0) {
        let response = unwrapEvent(r.status, text, start, end);
        if (response === FAILED) {
            // A whole answer failed after its status 200 was sent. Cutting it off is the one way left to say so: clients
            // report a broken connection and try again, where they would take an error for an answer without choices.
            throw new Error('an answer failed after its status was sent');
        }
        out = out ? out + response : response;
        start = end + EVENT_END.length;
    }
    if (waiting || start < text.length) {
        r.variables.unfinished_event = text.substring(start);
    }
    if (out || flags.last) {
        r.sendBuffer(out, flags);
    }
}

/** An error answer is one JSON object: kept until it is whole. */
function unwrapError(r, text, flags) {
    if (!flags.last) {
        r.variables.unfinished_event = text;
        return;
    }
    r.variables.unfinished_event = '';
    r.sendBuffer(unwrapEvent(r.status, text, 0, text.length), flags);
}

/**
 * The text inside one of Triton's answers, from `start` to `end`. What is not from openai_bls itself is not for clients.
 * njs frees nothing before the request ends, so only the text itself is cut out and parsed.
 */
function unwrapEvent(status, text, start, end) {
    let at = text.indexOf(RESPONSE, start);
    if (at >= 0 && at < end) {
        let close = text.lastIndexOf('}', end);
        return JSON.parse(text.substring(at + RESPONSE.length, close));
    }
    let answer = {};
    try {
        let event = text.substring(start, end);
        answer = JSON.parse(event.startsWith(EVENT_START) ? event.substring(EVENT_START.length) : event);
    } catch (e) {
        // Falls through: an answer that cannot be read is an error.
    }
    let error = answer.error || '';
    if (error.startsWith(ERROR_OBJECT)) {
        return error;
    }
    let body = errorBody(OWN_ERRORS[status] ? status : 500);
    return status === 200 ? EVENT_START + body + EVENT_END : body;
}

/** Answers a request that Triton says is at fault: openai_bls knows the true status and error, unless it is gone. */
async function refused(r) {
    let status = r.variables.upstream_status ? 503 : 400; // without Triton's word the request itself was broken
    let body = '';
    try {
        let reply = await r.subrequest('/internal/recall');
        let refusal = JSON.parse(unwrapEvent(reply.status, reply.responseText, 0, reply.responseText.length));
        status = refusal.status || status;
        body = refusal.body || '';
    } catch (e) {
        // Falls through: nobody is there to say more.
    }
    r.headersOut['Content-Type'] = 'application/json';
    retryAfter(r, status);
    r.return(status, body || errorBody(status));
}

/** Answers an error of nginx's own (error_page). */
function fail(r) {
    let status = Number(r.variables.status);
    r.headersOut['Content-Type'] = 'application/json';
    retryAfter(r, status);
    r.return(status, errorBody(status));
}

function errorBody(status) {
    let known = OWN_ERRORS[status] || OWN_ERRORS[status < 500 ? 400 : 500];
    return JSON.stringify({error: {message: known[2], type: known[0], param: null, code: known[1]}});
}

export default {wrap, recall, refused, requestName, keyHash, headers, unwrap, fail};
