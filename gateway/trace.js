/**
 * Where a request is in a trace (W3C Trace Context, www.w3.org/TR/trace-context): a part of the client's, or the
 * beginning of one. Its own span gets its id here, so that Triton's spans can name it; openai_bls makes the span, when
 * all is known.
 */

import crypto from 'crypto';

// Trace, span, flags. Ids of nothing but zeros, and version ff, are not valid.
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$/;
// What systems on the way have to say, no more than W3C wants to be passed on.
const TRACESTATE = /^[a-z0-9][\x20-\x7e]{0,511}$/;
const SAMPLED = 1;
// A trace id's last so many hexadecimal digits are random enough to decide by.
const DIGITS = 12;

/**
 * {sampled, span, parent, state}: the span's own place as W3C's traceparent, the id of the span above it and the
 * client's tracestate, both empty if there are none.
 */
function placeOf(r) {
    let id = r.variables.request_id;
    let given = TRACEPARENT.exec(r.headersIn['traceparent'] || '') || ['', id, '', ''];
    let state = given[0] && TRACESTATE.test(r.headersIn['tracestate'] || '') ? r.headersIn['tracestate'] : '';
    // Whoever had the request before has decided; else the share of requests that are traced.
    let sampled = given[0] ? Boolean(parseInt(given[3], 16) & SAMPLED)
                           : parseInt(id.slice(-DIGITS), 16) < Number(r.variables.trace_ratio) * Math.pow(16, DIGITS);
    let own = crypto.createHash('sha256').update(id).digest('hex').substring(0, 16);
    return {sampled: sampled, span: `00-${given[1]}-${own}-${sampled ? '01' : '00'}`, parent: given[2], state: state};
}

/** What openai_bls is told (openai_bls/1/trace_context.py). */
function told(r) {
    let place = placeOf(r);
    let since = Number(r.variables.msec) - Number(r.variables.request_time);
    return JSON.stringify(place.sampled ? {span: place.span, parent: place.parent, state: place.state, since: since}
                                        : {span: place.span});
}

/** Headers for Triton, which would trace a request even if they say that it is not to be. */
function parent(r) {
    let place = placeOf(r);
    return place.sampled ? place.span : '';
}

function state(r) {
    let place = placeOf(r);
    return place.sampled ? place.state : '';
}

export default {told, parent, state};
