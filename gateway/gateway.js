/**
 * What the gateway decides: how a request is wrapped for Triton's generate_stream, and how the answer is unwrapped.
 * Everything Triton sends through here is ASCII (openai_bls sees to that), so it may be cut at any byte.
 */

import crypto from 'crypto';
import trace from 'trace.js';

const EVENT_END = '\n\n';
const EVENT_START = 'data: ';
// What stands before the text in Triton's answers.
const RESPONSE = ',"response":';
// How an error object of openai_bls begins.
const ERROR_OBJECT = '{"error":';
const NO_JSON = '\u0000';
// Stands for a whole answer that failed after its status was sent; no JSON begins so.
const FAILED = '\u0018';
// What is reported of a request stands between two of these, behind the text of an answer of openai_bls.
const MARK = '\u001e';
// How the last report of a request ends.
const FINAL = '"final":true}';
// Above this a body is not parsed just to tell a nested "stream" from the outermost one.
const MAX_PARSED = 1048576;
// Names that may go into Triton's request id, headers and logs.
const SAFE_NAME = /^[A-Za-z0-9._-]{1,128}$/;
// A member with a name of six letters, perhaps escaped ones, that is true: "stream" is the one that is looked for.
const TRUE_MEMBER = /"(?:[a-z]|\\u00[0-9a-fA-F]{2}){6}"\s*:\s*true/;
// The same, spelled out: what counts where the body is not parsed.
const STREAM_MEMBER = /"stream"\s*:\s*true/;
// What the server knows at all, for requests that are refused before a route is found.
const METHODS = 'GET|HEAD|POST';
const RETRY_AFTER = {429: '1', 503: '2'};

// Errors that nginx finds by itself: [type, code, message].
const OWN_ERRORS = {
    400: ['invalid_request_error', null, 'The request is not valid.'],
    401: ['authentication_error', 'invalid_api_key', 'Incorrect API key provided.'],
    404: ['invalid_request_error', 'not_found', 'There is no such route.'],
    405: ['invalid_request_error', 'method_not_allowed', 'This route does not take this method.'],
    408: ['invalid_request_error', 'timeout', 'The request took too long to arrive.'],
    412: ['invalid_request_error', 'precondition_failed', 'Nothing here has a date or a version to ask for.'],
    413: ['invalid_request_error', 'content_too_large', 'The request body is too large.'],
    414: ['invalid_request_error', null, 'The URL is too long.'],
    415: ['invalid_request_error', 'unsupported_content_encoding', 'A request body must not be compressed.'],
    429: ['rate_limit_error', 'queue_full', 'The server has as many requests waiting as it accepts. Try again later.'],
    431: ['invalid_request_error', null, 'The request headers are too large.'],
    500: ['server_error', 'internal_error', 'The server had an error while processing the request.'],
    503: ['server_error', 'service_unavailable', 'The server is not ready. Try again later.'],
};

// Characters of this request's answer: passed on so far, and how many may be before the client has to be looked at.
let passed = 0;
let unlooked = 0;
// Whether it is an answer of events.
let streams = false;

/** The body for generate_stream: the client's own as one string. */
function wrap(r) {
    let v = r.variables;
    let wrapped = {id: v.request_name, endpoint: v.endpoint, ticket: v.ticket, report: '1'};
    if (v.trace_ratio) {
        wrapped.trace = trace.told(r);
    }
    try {
        wrapped.request = bodyOf(r);
        return JSON.stringify(wrapped);
    } catch (e) {
        wrapped.request = NO_JSON;
        return JSON.stringify(wrapped);
    }
}

/** The client's body; one that is not UTF-8, or came in so small chunks that it is in a file, is as good as no JSON. */
function bodyOf(r) {
    try {
        return r.requestText || '';
    } catch (e) {
        return NO_JSON;
    }
}

/** The question why a request was refused; it goes to `refusing_triton`. */
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
    return sha256(bearer ? bearer[1] : r.headersIn['x-api-key']);
}

/** SHA-256 of what the header of this route's group holds; "free" if the group wants none. */
function groupHash(r) {
    let name = r.variables.group_header;
    return name ? sha256(r.headersIn[name]) : 'free';
}

/** Nothing has no digest: whatever list of digests there is, who sends nothing is not in it. */
function sha256(text) {
    return text ? crypto.createHash('sha256').update(text).digest('hex') : 'none';
}

/** "1" if the body is said to be encoded, in any of the Content-Encoding headers. */
function encoded(r) {
    let said = r.rawHeadersIn.filter(header => header[0].toLowerCase() === 'content-encoding');
    return said.every(header => /^(?:identity)?$/i.test(header[1])) ? '' : '1';
}

/** Milliseconds since the first byte of the request, asked for when the response header leaves. */
function processingMs(r) {
    return String(Math.round(Number(r.variables.request_time) * 1000));
}

/**
 * Whether the body asks for a stream. Quotes inside JSON strings are escaped, so the tests find members only; parsing
 * tells those of the outermost object from nested ones. A very large body is not parsed, and njs refuses deep nesting.
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
    passed = 0;
    unlooked = Number(r.variables.max_backlog);
    delete r.headersOut['Content-Length'];
    streams = r.status === 200 && wantsStream(bodyOf(r));
    r.headersOut['Content-Type'] = streams ? 'text/event-stream; charset=utf-8' : 'application/json';
    retryAfter(r, r.status);
}

function retryAfter(r, status) {
    if (RETRY_AFTER[status]) {
        r.headersOut['Retry-After'] = RETRY_AFTER[status];
    }
}

/**
 * Takes the wrapping off Triton's events as they pass; an unfinished one waits for its rest. openai_bls keeps its
 * responses small, because what waits is copied with every buffer that arrives.
 */
function unwrap(r, data, flags) {
    let waiting = r.variables.unfinished_event;
    let text = waiting ? waiting + data : data;
    if (r.status !== 200) {
        unwrapError(r, text, flags);
        return;
    }
    let out = '';
    let several = null; // a string that grew with each event would be kept as often as it grew
    let start = 0;
    let end;
    while ((end = text.indexOf(EVENT_END, start)) >= 0) {
        let response = unwrapEvent(r, r.status, text, start, end);
        if (response === FAILED) {
            breakOff(r, 'an answer failed after its status was sent');
        }
        if (!out) {
            out = response;
        } else if (response) {
            several = several || [out];
            several.push(response);
        }
        start = end + EVENT_END.length;
    }
    if (waiting || start < text.length) {
        r.variables.unfinished_event = text.substring(start);
    }
    if (several) {
        out = several.join('');
    }
    if (flags.last) {
        out += lostEnd(r);
        r.variables.answer_ended = '1';
    }
    if (out || flags.last) {
        r.sendBuffer(out, flags);
        passed += out.length;
        if (passed > unlooked) {
            look(r);
        }
    }
}

/**
 * What is said to a client whose answer ends without the last of openai_bls's responses: Triton loses some of them when
 * it is very short of CPU (docs/performance.md). A client would take what has come for the whole.
 */
function lostEnd(r) {
    if (!r.variables.report || r.variables.report.endsWith(FINAL)) {
        return '';
    }
    if (!streams) {
        breakOff(r, 'the end of an answer was lost');
    }
    r.variables.error_code = 'internal_error';
    return EVENT_START + errorBody(r, 500) + EVENT_END;
}

/**
 * A whole answer that fails after its status 200 was sent is cut off, the one way left to say so: clients report a
 * broken connection and try again, where they would take an error for an answer without choices.
 */
function breakOff(r, reason) {
    r.variables.error_code = 'internal_error';
    throw new Error(reason);
}

/**
 * Cuts off a client that is too far behind: what it does not read stays in memory, because a filter cannot make nginx
 * read more slowly from Triton.
 */
function look(r) {
    unlooked = Number(r.variables.bytes_sent) + Number(r.variables.max_backlog);
    if (passed > unlooked) {
        r.variables.error_code = 'slow_reader';
        throw new Error('a client does not read its answer');
    }
}

/**
 * In a hop: drops ticks until there is an event for the client, and nginx sends no header before there is anything to
 * send with it. So who asked the hop may ask another one as long as this has passed nothing on.
 */
function hold(r, data, flags) {
    let held = r.variables.unfinished_event + data;
    let start = 0;
    let end;
    while (r.status === 200 && !flags.last) {
        end = held.indexOf(EVENT_END, start);
        if (end < 0) {
            r.variables.unfinished_event = held.substring(start);
            return;
        }
        if (unwrapEvent(r, r.status, held, start, end)) {
            break;
        }
        start = end + EVENT_END.length;
    }
    r.sendBuffer(held.substring(start), flags);
    r.done(); // the rest passes without a look
}

/** An error answer is one JSON object: kept until it is whole. */
function unwrapError(r, text, flags) {
    if (!flags.last) {
        r.variables.unfinished_event = text;
        return;
    }
    r.variables.unfinished_event = '';
    r.sendBuffer(unwrapEvent(r, r.status, text, 0, text.length), flags);
}

/**
 * The text inside one of Triton's answers, from `start` to `end`. What is not from openai_bls is not for clients.
 * njs frees nothing before the request ends, so only the text itself is cut out and parsed.
 */
function unwrapEvent(r, status, text, start, end) {
    let at = text.indexOf(RESPONSE, start);
    if (at >= 0 && at < end) {
        let close = text.lastIndexOf('}', end);
        return withoutReport(r, JSON.parse(text.substring(at + RESPONSE.length, close)));
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
        return withoutReport(r, error);
    }
    let body = errorBody(r, OWN_ERRORS[status] ? status : 500);
    return status === 200 ? EVENT_START + body + EVENT_END : body;
}

/** Keeps the report, if there is one: for the access log, and to know whether the answer is whole. */
function withoutReport(r, text) {
    if (!text.endsWith(MARK)) {
        return text;
    }
    let end = text.length - 1;
    let start = text.lastIndexOf(MARK, end - 1);
    r.variables.report = text.substring(start + 1, end);
    return text.substring(0, start);
}

/** Answers a request that Triton says is at fault: openai_bls knows the true status and error, unless it is gone. */
async function refused(r) {
    let status = r.variables.upstream_status ? 503 : 400; // without Triton's word the request itself was broken
    let body = '';
    try {
        r.variables.refusing_triton = lastAddress(r.variables.upstream_addr);
        let reply = await r.subrequest('/internal/recall');
        let refusal = JSON.parse(unwrapEvent(r, reply.status, reply.responseText, 0, reply.responseText.length));
        status = refusal.status || status;
        body = withoutReport(r, refusal.body || '');
    } catch (e) {
        // Falls through: nobody is there to say more.
    }
    if (status === 503 && r.variables.other_tritons && r.variables.refusing_triton === r.variables.upstream_addr) {
        r.variables.report = r.variables.error_code = '';
        r.internalRedirect('@again'); // it is the first that was asked
        return;
    }
    r.headersOut['Content-Type'] = 'application/json';
    retryAfter(r, status);
    r.return(status, body || errorBody(r, status));
}

/** The Triton that answered: the last of those that were asked. nginx lists them all, "1.2.3.4:8000, 1.2.3.5:8000". */
function lastAddress(addresses) {
    return addresses.substring(Math.max(addresses.lastIndexOf(' '), addresses.lastIndexOf(',')) + 1);
}

/** The same, for the access log; nothing if none was asked. */
function answeringTriton(r) {
    return lastAddress(r.variables.upstream_addr || '');
}

/**
 * The body of an error of nginx's own (error_page), and its headers. A variable, because js_content would read the
 * request's body first: a client could take its time with that, and nothing would count it.
 */
function fail(r) {
    let status = Number(r.variables.status);
    let reason = reasonOf(status, r.variables);
    retryAfter(r, status);
    if (reason.wait) {
        r.headersOut['Retry-After'] = reason.wait;
    }
    if (status === 401) {
        r.headersOut['WWW-Authenticate'] = 'Bearer';
    }
    if (status === 405) {
        r.headersOut['Allow'] = (r.variables.methods || METHODS).split('|').join(', ');
    }
    return reason.error ? errorObject(r, reason.error) : errorBody(r, status);
}

/** Of statuses with several reasons: {error: [type, code, message], wait: seconds}; empty for the one in OWN_ERRORS. */
function reasonOf(status, variables) {
    if (status === 401 && variables.group_entered === '0') {
        return {error: ['authentication_error', 'invalid_auth',
                        'This route needs a header that was not sent, or that has another value.']};
    }
    if (status === 429 && variables.limit_req_status === 'REJECTED') {
        return {error: ['rate_limit_error', 'rate_limit_exceeded',
                        'Too many requests in a short time. Try again later.'],
                wait: variables.rate_retry_after};
    }
    if (status === 429 && variables.limit_conn_status === 'REJECTED') {
        return {error: ['rate_limit_error', 'too_many_concurrent_requests',
                        'Too many requests at the same time. Try again when others have ended.']};
    }
    return {};
}

function errorBody(r, status) {
    return errorObject(r, OWN_ERRORS[status] || OWN_ERRORS[status < 500 ? 400 : 500]);
}

function errorObject(r, row) {
    r.variables.error_code = row[1] || row[0];
    return JSON.stringify({error: {message: row[2], type: row[0], param: null, code: row[1]}});
}

export default {wrap, recall, refused, requestName, keyHash, groupHash, encoded, processingMs, headers, unwrap, hold,
                answeringTriton, fail};
