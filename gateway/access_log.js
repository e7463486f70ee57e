/**
 * The access log's line: one JSON object per request, in ASCII, whatever the client sent. The gateway's own part comes
 * from nginx's variables, the model's from the report that openai_bls has put behind its answer (gateway.js took it off).
 */

// Of what a client wrote no more than so many characters are told.
const LONGEST = 256;
const METHOD = /^[A-Z_-]{1,32}(?= )/;
// What openai_bls reports (openai_bls/1/report.py).
const REPORTED = ['model', 'response_id', 'prompt_tokens', 'cached_tokens', 'completion_tokens', 'reasoning_tokens',
                  'finish_reasons', 'queue_ms', 'ttft_ms'];
const EVENTS = /^text\/event-stream/;

/** The line, without its end. */
function line(r) {
    let v = r.variables;
    let report = reported(v.report);
    let error = report.error || v.error_code || lost(v);
    let method = METHOD.exec(written(r, 'request'));
    // Pairs, because njs does not keep the order of an object's members.
    let told = [
        ['time', new Date(Math.round(Number(v.msec) * 1000)).toISOString()],
        ['request_id', v.request_name],
        ['key_id', v.key_name === '-' ? null : v.key_name],
        ['client', v.remote_addr],
        ['method', method && method[0]],
        ['path', written(r, 'request_uri').split('?')[0].substring(0, LONGEST)],
        ['endpoint', endpoint(v)],
        ['status', number(v.status)],
        ['error', error],
        ['cancelled', v.status === '499' || (v.request_completion !== 'OK' && !error)],
        ['stream', EVENTS.test(v.sent_http_content_type || '')],
    ].concat(REPORTED.map(name => [name, report[name]]), [
        ['duration_ms', milliseconds(v.request_time)],
        ['bytes_in', number(v.request_length)],
        ['bytes_out', number(v.bytes_sent)],
        ['upstream', v.upstream_name],
    ]);
    if (v.log_prompts) {
        told.push(['request', body(r, Number(v.log_prompts))]);
    }
    return ascii('{' + told.map(member).join(',') + '}');
}

/** Nothing is null. */
function member(pair) {
    let value = pair[1] === undefined || pair[1] === '' ? null : pair[1];
    return '"' + pair[0] + '":' + JSON.stringify(value);
}

function reported(text) {
    try {
        return text ? JSON.parse(text) : {};
    } catch (e) {
        return {};
    }
}

/** What stands in a variable that the client filled, perhaps with bytes that are no UTF-8. */
function written(r, name) {
    let bytes = r.rawVariables[name];
    return bytes && bytes.length ? bytes.toString() : '';
}

/** The route by one of few names; nothing if there is none. */
function endpoint(v) {
    if (v.endpoint) {
        return v.endpoint.startsWith('models') ? 'models' : v.endpoint;
    }
    return v.group;
}

/** What ended an answer that is over for nginx, but whose end never came: its Triton has gone. */
function lost(v) {
    let begun = v.upstream_status && v.endpoint && v.status === '200';
    return begun && v.request_completion === 'OK' && !v.answer_ended ? 'upstream_lost' : null;
}

/** A number of nginx's; null for "-", nothing, or "" */
function number(text) {
    let value = parseFloat(text);
    return isFinite(value) ? value : null;
}

function milliseconds(seconds) {
    let value = number(seconds);
    return value === null ? null : Math.round(value * 1000);
}

/** The beginning of the client's body; what is no UTF-8 in it is replaced. */
function body(r, most) {
    try {
        let bytes = r.requestBuffer;
        return bytes && bytes.length ? bytes.slice(0, most).toString() : null;
    } catch (e) {
        return null; // it came in so small chunks that it is in a file
    }
}

/** JSON with nothing in it that a terminal or a log reader could take for anything else. */
function ascii(json) {
    return json.replace(/[^\x20-\x7e]/g, escaped);
}

function escaped(character) {
    let code = character.codePointAt(0);
    if (code < 0x10000) {
        return unit(code);
    }
    return unit(0xd800 + ((code - 0x10000) >> 10)) + unit(0xdc00 + ((code - 0x10000) & 0x3ff));
}

function unit(code) {
    return '\\u' + ('000' + code.toString(16)).slice(-4);
}

export default {line};
