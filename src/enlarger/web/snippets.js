// The request as code: cURL, Python, JavaScript. Pure. Without a key the code reads it from ENLARGER_KEY.

import { MODEL_PATH } from "./api.js";

const MODEL = MODEL_PATH.replace("/api/v3/", "");

// origin: of the server; body: of the submit; key: "" to leave it out.
export const snippets = {
  curl: ({ origin, body, key }) => `curl ${origin}${MODEL_PATH} \\
  -H "Authorization: Bearer ${key || "$ENLARGER_KEY"}" \\
  -H "Content-Type: application/json" \\
  -H "Prefer: wait=60" \\
  -d '{${fieldsOf(body).join(", ").replaceAll("'", "'\\''")}}'`,

  python: ({ origin, body, key }) => `${key ? "" : "import os\n"}import wavespeed  # pip install wavespeed

client = wavespeed.Client(
    api_key=${key ? JSON.stringify(key) : 'os.environ["ENLARGER_KEY"]'},
    base_url="${origin}",
)
result = client.run("${MODEL}", ${pythonic(body)})
print(result["outputs"][0])`,

  javascript: ({ origin, body, key }) => `const headers = {
  Authorization: ${key ? JSON.stringify(`Bearer ${key}`) : "`Bearer ${process.env.ENLARGER_KEY}`"},
  "Content-Type": "application/json",
  Prefer: "wait=60",
};
const body = JSON.stringify(${JSON.stringify(body, null, 2)});
let answer = await fetch("${origin}${MODEL_PATH}", { method: "POST", headers, body });
let { data, message } = await answer.json();
if (!answer.ok) throw new Error(message);
while (data.status === "created" || data.status === "processing") {
  answer = await fetch(data.urls.get, { headers });
  data = (await answer.json()).data;
}
console.log(data.error || data.outputs[0]);`,
};

const fieldsOf = (body) => Object.entries(body).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);

// JSON as Python writes it: the same but for three words.
function pythonic(body) {
  const literal = (value) => ({ true: "True", false: "False", null: "None" })[String(value)] ?? JSON.stringify(value);
  const lines = Object.entries(body).map(([name, value]) => `    ${JSON.stringify(name)}: ${literal(value)},`);
  return `{\n${lines.join("\n")}\n}`;
}
