/** Figures out of the text that Prometheus reads. */

const LINE = /^([A-Za-z_:][\w:]*(?:\{.*\})?)\s+(\S+)/;

/**
 * Series that hold a figure: the first pattern that finds any counts, and all that it finds are added up (models,
 * instances). Names are known by their ends, because each server puts a prefix of its own before the usual ones.
 */
const SOURCES = {
    running: [/num_requests_running(\{|$)/, /^nv_trt_llm_request_metrics\{.*request_type="scheduled"/],
    waiting: [/num_requests_waiting(\{|$)/, /^nv_trt_llm_request_metrics\{.*request_type="waiting"/],
    served: [/request_success_total(\{|$)/, /^nv_inference_request_success\{.*model="openai_bls"/],
    generated: [/generation_tokens_total(\{|$)/],
    firstSeconds: [/time_to_first_token_seconds_sum(\{|$)/],
    firsts: [/time_to_first_token_seconds_count(\{|$)/],
};

/** Reads a page of metrics: name → value, for each of SOURCES that it has. `at` is a time in milliseconds. */
export function sample(text, at) {
    const series = text.split('\n').flatMap(line => {
        const found = LINE.exec(line);
        return found ? [{name: found[1], value: Number(found[2])}] : [];
    });
    const values = {};
    for (const [figure, patterns] of Object.entries(SOURCES)) {
        const found = patterns.map(pattern => series.filter(each => pattern.test(each.name))).find(all => all.length);
        if (found) {
            values[figure] = found.reduce((sum, each) => sum + each.value, 0);
        }
    }
    return {at, values};
}

/** What to show: [label, text] rows, as far as the server has figures. `before` is the sample before `now`, or null. */
export function rows(before, now) {
    const {running, waiting, served, generated, firstSeconds, firsts} = now.values;
    const grown = (generated - before?.values.generated) / ((now.at - before?.at) / 1000);
    return [
        ['Running', running],
        ['Waiting', waiting],
        ['Requests', served],
        ['Tokens', generated],
        ['Tokens/s', Math.max(0, grown)], // a server that was restarted counts from nothing
        ['First token, mean ms', (1000 * firstSeconds) / firsts],
    ].flatMap(([label, value]) => (Number.isFinite(value) ? [[label, shown(value)]] : []));
}

function shown(value) {
    return value.toLocaleString('en', {maximumFractionDigits: value < 10 ? 1 : 0});
}
