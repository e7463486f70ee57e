/** A request as something to paste. The key is never part of it: it is read from the variable OPENAI_API_KEY. */

const WIDTH = 100;
const PYTHON_NAMES = new Map([[null, 'None'], [true, 'True'], [false, 'False']]);

/**
 * For bash, zsh and other POSIX shells. In a here-document with a quoted delimiter nothing has a meaning, and no line
 * of JSON is the delimiter: line breaks within strings are escaped.
 */
export function curl(base, request, withKey) {
    const key = withKey ? ' \\\n    -H "Authorization: Bearer $OPENAI_API_KEY"' : '';
    return `curl -N ${shellQuoted(`${base}/chat/completions`)} \\
    -H 'Content-Type: application/json'${key} \\
    --data-binary @- <<'JSON'
${JSON.stringify(request, null, 2)}
JSON
`;
}

export function python(base, request, withKey) {
    const key = withKey ? 'os.environ["OPENAI_API_KEY"]' : '"none"';
    const options = Object.entries(request).map(([name, value]) => `    ${name}=${literal(value, '    ')},\n`);
    return `${withKey ? 'import os\n\n' : ''}from openai import OpenAI

client = OpenAI(base_url=${literal(base, '')}, api_key=${key})
chunks = client.chat.completions.create(
${options.join('')})
for chunk in chunks:
    for choice in chunk.choices:
        print(choice.delta.content or choice.delta.tool_calls or "", end="", flush=True)
`;
}

function shellQuoted(text) {
    return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A value of JSON as Python writes it. Every escape that JSON.stringify uses means the same in Python's strings. */
function literal(value, indent) {
    if (value === null || typeof value !== 'object') {
        return PYTHON_NAMES.get(value) ?? JSON.stringify(value);
    }
    const deeper = `${indent}    `;
    const [open, close, items] = Array.isArray(value)
        ? ['[', ']', value.map(item => literal(item, deeper))]
        : ['{', '}', Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, deeper)}`)];
    const line = `${open}${items.join(', ')}${close}`;
    if (line.length <= WIDTH - indent.length && !line.includes('\n')) {
        return line;
    }
    return `${open}\n${items.map(item => `${deeper}${item},\n`).join('')}${indent}${close}`;
}
