/** Wires the page: a conversation, its settings, the counters. */

import {Answer} from './answer.js';
import {rows, sample} from './counters.js';
import {AnswerEntry, UserEntry, element} from './entries.js';
import {base, chat, hasKey, isAbort, metrics, models, setKey} from './server.js';
import {curl, python} from './snippets.js';

const COUNTERS_EVERY_MS = 2000;
const MODELS_AGAIN_MS = 5000;
const EXAMPLE = [{
    type: 'function',
    function: {
        name: 'get_weather',
        description: 'Get the current weather in a city.',
        parameters: {type: 'object', properties: {city: {type: 'string'}}, required: ['city']},
    },
}];

/** How the text of a field becomes a member of the request; an empty one is not sent. */
const MEMBERS = {
    temperature: Number,
    top_p: Number,
    max_tokens: Number,
    seed: Number,
    stop: text => text.split('\n').filter(line => line).map(line => line.replaceAll('\\n', '\n')),
    reasoning_effort: String,
    tools: JSON.parse,
    tool_choice: choice => (TOOL_CHOICES.includes(choice) ? choice : {type: 'function', function: {name: choice}}),
};

const byId = id => document.getElementById(id);
const [log, text, settings] = ['log', 'text', 'settings'].map(byId);
const fields = settings.elements;
const TOOL_CHOICES = Array.from(fields.tool_choice.options, option => option.value);

let messages = []; // of the conversation, without the system prompt
let calls = []; // of the last answer, waiting for their results
let running = null; // what stops the answer that is being written

// --- Conversation --------------------------------------------------------------------------------------------------

async function submit() {
    const added = [...calls.map(call => call.message), ...(text.value.trim() ? [{role: 'user', content: text.value}] : [])];
    const options = running || !added.length ? null : readSettings();
    if (!options) {
        return;
    }
    const system = fields.system.value.trim() ? [{role: 'system', content: fields.system.value}] : [];
    const request = {
        model: byId('model').value,
        messages: [...system, ...messages, ...added],
        ...options,
        stream: true,
        stream_options: {include_usage: true},
    };
    showSnippets(request);
    const asked = text.value;
    const question = new UserEntry(asked);
    const entry = new AnswerEntry(request.model);
    log.append(...(asked.trim() ? [question.root] : []), entry.root);
    log.scrollTop = log.scrollHeight;
    text.value = '';
    setRunning(new AbortController());

    const answer = new Answer(performance.now());
    let problem = null;
    try {
        for await (const chunk of chat(request, running.signal)) {
            const follow = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
            entry.show(answer.take(chunk, performance.now()));
            log.scrollTop = follow ? log.scrollHeight : log.scrollTop;
        }
    } catch (error) {
        problem = error;
    }
    setRunning(null);
    const open = entry.end(answer, ending(answer, problem), Boolean(problem) && !isAbort(problem));
    if (answer.message) {
        messages.push(...added, answer.message);
        calls.forEach(call => call.close());
        calls = open.map(call => call.ask(submit));
    } else {
        question.strike();
        text.value ||= asked;
    }
    log.scrollTop = log.scrollHeight;
    if (problem?.status === 401) {
        askForKey();
    }
}

function ending(answer, problem) {
    if (problem) {
        return isAbort(problem) ? 'Stopped.' : problem.message;
    }
    return answer.finish === 'length' ? 'Cut: as many tokens as were allowed.' : `finished: ${answer.finish}`;
}

function setRunning(controller) {
    running = controller;
    byId('send').hidden = byId('new').disabled = Boolean(running);
    byId('stop').hidden = !running;
}

function startAnew() {
    messages = [];
    calls = [];
    log.replaceChildren();
    text.focus();
}

// --- Settings ------------------------------------------------------------------------------------------------------

/** The members of the request that come from fields; null if one of them is wrong, which the browser then shows. */
function readSettings() {
    fields.tools.setCustomValidity(faultOf(fields.tools.value));
    const wrong = settings.querySelector(':invalid');
    if (wrong) {
        wrong.closest('details').open = true;
        settings.reportValidity();
        return null;
    }
    const given = Object.entries(MEMBERS).filter(([name]) => fields[name].value.trim());
    const {tool_choice, ...members} = Object.fromEntries(given.map(([name, read]) => [name, read(fields[name].value)]));
    return members.tools && tool_choice ? {...members, tool_choice} : members;
}

function faultOf(tools) {
    try {
        return !tools.trim() || Array.isArray(JSON.parse(tools)) ? '' : 'Tools are a list: [{"type": "function", …}]';
    } catch (error) {
        return `This is no JSON: ${error.message}`;
    }
}

/** Each function can be chosen by its name. */
function offerToolChoices() {
    const tools = faultOf(fields.tools.value) ? [] : JSON.parse(fields.tools.value || '[]');
    const names = tools.map(tool => tool?.function?.name).filter(name => name && !TOOL_CHOICES.includes(name));
    const chosen = fields.tool_choice.value;
    const own = Array.from(fields.tool_choice.options).slice(0, TOOL_CHOICES.length);
    fields.tool_choice.replaceChildren(...own, ...names.map(name => element('option', {value: name}, name)));
    fields.tool_choice.value = [...TOOL_CHOICES, ...names].includes(chosen) ? chosen : '';
}

function askForKey() {
    byId('key').closest('details').open = true;
    byId('key').focus();
}

// --- Code ----------------------------------------------------------------------------------------------------------

function showSnippets(request) {
    byId('curl').textContent = curl(base, request, hasKey());
    byId('python').textContent = python(base, request, hasKey());
    byId('snippets').hidden = false;
}

async function copy(button) {
    const code = button.parentElement.querySelector('pre');
    try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = 'Copied';
    } catch {
        getSelection().selectAllChildren(code); // without HTTPS a page may not write to the clipboard
        button.textContent = 'Selected: press Ctrl+C';
    }
    setTimeout(() => (button.textContent = 'Copy'), 2000);
}

// --- Server --------------------------------------------------------------------------------------------------------

async function loadModels() {
    let problem = null;
    try {
        const chosen = byId('model').value;
        const names = await models();
        byId('model').replaceChildren(...names.map(name => element('option', {value: name}, name)));
        byId('model').value = names.includes(chosen) ? chosen : names[0];
    } catch (error) {
        problem = error;
    }
    byId('state').textContent = problem?.message ?? '';
    if (problem?.status === 401) {
        askForKey();
    } else if (problem) {
        setTimeout(loadModels, MODELS_AGAIN_MS);
    }
}

let lastSample = null;
let mayCount = document.documentElement.dataset.metrics !== 'off';

async function count() {
    if (!mayCount || document.hidden) {
        return;
    }
    try {
        const now = sample(await metrics(), performance.now());
        const shown = rows(lastSample, now).map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, value)));
        byId('counters').replaceChildren(...shown);
        byId('counters').hidden = !shown.length;
        lastSample = now;
    } catch (problem) {
        byId('counters').hidden = true;
        mayCount = ![401, 404].includes(problem.status);
    }
}

// --- Wires ---------------------------------------------------------------------------------------------------------

byId('composer').addEventListener('submit', event => {
    event.preventDefault();
    submit();
});
text.addEventListener('keydown', event => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        submit();
    }
});
document.addEventListener('keydown', event => event.key === 'Escape' && running?.abort());
byId('stop').addEventListener('click', () => running?.abort());
byId('new').addEventListener('click', startAnew);
settings.addEventListener('submit', event => event.preventDefault());
fields.tools.addEventListener('input', offerToolChoices);
byId('example').addEventListener('click', () => {
    fields.tools.value = JSON.stringify(EXAMPLE, null, 2);
    offerToolChoices();
});
byId('key').addEventListener('change', event => {
    setKey(event.target.value);
    mayCount = document.documentElement.dataset.metrics !== 'off';
    loadModels();
});
document.querySelectorAll('#snippets button').forEach(button => button.addEventListener('click', () => copy(button)));

byId('key').closest('details').open = matchMedia('(min-width: 48rem)').matches;
loadModels();
count();
setInterval(count, COUNTERS_EVERY_MS);
