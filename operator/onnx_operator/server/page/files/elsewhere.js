// The request that the form makes, as a command and as a program. No DOM here.
import { fromText } from "./tensors.js";

const LARGE = 4000;

/** Whether the body is better kept in a file than in a command. */
export function isLarge(body) {
  return body.length > LARGE;
}

export function curl(url, body, token) {
  const header = token ? " -H 'Authorization: Bearer TOKEN'" : "";
  const data = isLarge(body) ? "@request.json" : quoted(body);
  return `curl ${quoted(url)}${header} -H 'Content-Type: application/json' -d ${data}`;
}

export function python(url, body, token) {
  const header = token ? ', headers={"Authorization": "Bearer TOKEN"}' : "";
  const imports = isLarge(body) ? "import json\n\nimport requests" : "import requests";
  const literal = isLarge(body) ? 'json.load(open("request.json"))' : value(fromText(body), "");
  const lines = [imports, "", `body = ${literal}`, `answer = requests.post(${JSON.stringify(url)}, json=body${header})`];
  return [...lines, "answer.raise_for_status()", "print(answer.json())"].join("\n");
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

const WIDTH = 88;

/** A value of JSON as Python writes it, broken into lines where it is long. */
function value(of, indent) {
  const flat = plain(of);
  if (flat.length + indent.length <= WIDTH || of === null || typeof of !== "object") {
    return flat;
  }
  const deeper = `${indent}    `;
  if (Array.isArray(of)) {
    if (of.every((each) => each === null || typeof each !== "object")) {
      return flat;
    }
    return `[\n${of.map((each) => `${deeper}${value(each, deeper)},\n`).join("")}${indent}]`;
  }
  const entries = Object.entries(of).map(([key, each]) => `${deeper}${JSON.stringify(key)}: ${value(each, deeper)},\n`);
  return `{\n${entries.join("")}${indent}}`;
}

function plain(of) {
  if (of === null || typeof of === "boolean") {
    return { null: "None", true: "True", false: "False" }[of];
  }
  if (Array.isArray(of)) {
    return `[${of.map(plain).join(", ")}]`;
  }
  if (typeof of === "object") {
    return `{${Object.entries(of).map(([key, each]) => `${JSON.stringify(key)}: ${plain(each)}`).join(", ")}}`;
  }
  // Strings of JSON are strings of Python, but for lone halves of characters, which the server refuses anyway.
  return typeof of === "string" ? JSON.stringify(of) : String(of);
}
