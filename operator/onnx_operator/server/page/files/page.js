import { layout, elements, SCALES } from "./picture.js";
import { count, filled, flatten, nested, number, ranking, show, startShape } from "./tensors.js";

const MOST_FIELDS = 16;
const MOST_SHOWN = 400;
const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

let facts;
let labels = [];
const readers = new Map();
const writers = new Map();

async function start() {
  const read = await ask("/page/facts.json");
  if (read.status === 401) {
    $("token-row").hidden = false;
    $("about").textContent = "This endpoint wants a token.";
    $("token").addEventListener("change", () => start(), { once: true });
    return;
  }
  facts = await read.json();
  document.title = facts.name;
  $("name").textContent = facts.name;
  const runs = facts.providers.map((name) => name.replace("ExecutionProvider", "")).join(", ");
  const about = [facts.version && `version ${facts.version}`, facts.scripted ? "scoring script" : runs && `runs on ${runs}`];
  $("about").textContent = about.filter(Boolean).join(" · ");
  $("footer").textContent = facts.server;
  $("inputs").replaceChildren();
  if (facts.scripted) {
    script();
  } else {
    facts.inputs.filter((input) => !input.optional).forEach(field);
  }
  signature();
  $("example").hidden = !facts.example;
  if (facts.example) {
    useExample();
  }
  same();
}

function ask(path, body) {
  const headers = {};
  if ($("token").value) {
    headers.Authorization = `Bearer ${$("token").value}`;
  }
  if (body === undefined) {
    return fetch(path, { headers });
  }
  headers["Content-Type"] = "application/json";
  return fetch(path, { method: "POST", headers, body });
}

// The form.

function script() {
  const area = make("textarea", { id: "input-body", rows: 8, spellcheck: false, value: '{"data": [[1, 2, 3, 4]]}' });
  $("inputs").append(make("label", { htmlFor: area.id }, "Body, as the script's run() takes it"), area);
  area.addEventListener("input", same);
}

function field(input, place) {
  const shape = startShape(input);
  const box = make("fieldset");
  box.append(make("legend", {}, input.name, make("small", {}, `${input.datatype} ${show(input.shape)}`)));
  $("inputs").append(box);
  if (!input.json) {
    box.append(make("p", { className: "quiet" }, `${input.datatype} has no form in JSON: this page cannot send it.`));
    return;
  }
  const single = shape.length > 0 && count(shape) <= MOST_FIELDS && input.shape.slice(1).every(Number.isInteger);
  if (single || shape.length === 0) {
    numbers(box, input, shape, place);
  } else {
    text(box, input, shape, place);
  }
}

function numbers(box, input, shape, place) {
  const grid = make("div", { className: "fields" });
  const size = count(shape);
  const fields = Array.from({ length: size }, (_, index) => {
    const id = `input-${place}-${index}`;
    const entry = make("input", { id, inputMode: input.datatype === "BYTES" ? "text" : "decimal", value: start(input) });
    grid.append(make("label", { htmlFor: id }, size === 1 ? "value" : `${index}`, entry));
    entry.addEventListener("input", same);
    return entry;
  });
  box.append(grid);
  readers.set(input.name, () => ({ shape, data: fields.map((entry) => element(input, entry.value)) }));
  writers.set(input.name, (value) => {
    const { data } = flatten(value);
    fields.forEach((entry, index) => (entry.value = String(data[index] ?? "")));
  });
  function start(of) {
    return of.datatype === "BYTES" ? "" : of.datatype === "BOOL" ? "false" : "0";
  }
}

function text(box, input, shape, place) {
  const id = `input-${place}`;
  const area = make("textarea", { id, spellcheck: false });
  const held = { shape, data: null };
  const set = (data, of) => {
    held.shape = of;
    held.data = data;
    const shown = data.length <= 20000;
    area.value = shown ? JSON.stringify(nested(data, of)) : `(${data.length} elements, filled in; type here to replace them)`;
    area.readOnly = false;
    same();
  };
  const fill = make("div", { className: "fill" }, "Fill with");
  for (const kind of ["zeros", "ones", "random"]) {
    const button = make("button", { type: "button" }, kind);
    button.addEventListener("click", () => set(filled(input, startShape(input), kind), startShape(input)));
    fill.append(button);
  }
  area.addEventListener("input", () => {
    held.data = null;
    same();
  });
  const where = layout(input);
  if (where) {
    box.append(picture(input, where, set, place));
  }
  box.append(fill, make("label", { htmlFor: id, className: "quiet" }, "Nested lists"), area);
  readers.set(input.name, () => (held.data ? held : flatten(parse(area.value, input.name))));
  writers.set(input.name, (value) => {
    const { shape: of, data } = flatten(value);
    set(data, of);
  });
  set(filled(input, shape, "zeros"), shape);
}

function picture(input, where, set, place) {
  const chooser = make("input", { type: "file", accept: "image/*", id: `picture-${place}` });
  const scale = make("select", { id: `scale-${place}` });
  for (const [key, title] of Object.entries(SCALES)) {
    scale.append(make("option", { value: key }, title));
  }
  scale.value = input.datatype.startsWith("FP") ? "unit" : "byte";
  const shown = make("img", { alt: "", hidden: true });
  const zone = make(
    "div",
    { className: "drop" },
    shown,
    make("label", { htmlFor: chooser.id }, `Drop a picture here, or choose one (${where.width} × ${where.height})`, make("br"), chooser),
    make("label", { htmlFor: scale.id }, "as ", scale),
  );
  let last = null;
  const use = async () => {
    if (!last) {
      return;
    }
    try {
      const data = await elements(last, where, scale.value);
      const sizes = where.first ? [where.channels, where.height, where.width] : [where.height, where.width, where.channels];
      set(data, input.shape.length === 4 ? [1, ...sizes] : sizes);
      shown.src = URL.createObjectURL(last);
      shown.hidden = false;
      fail("");
    } catch {
      fail(`${last.name || "The file"} is no picture that this browser can read.`);
    }
  };
  const take = (file) => {
    last = file;
    return use();
  };
  chooser.addEventListener("change", () => chooser.files[0] && take(chooser.files[0]));
  scale.addEventListener("change", use);
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) {
      take(file);
    }
  });
  return zone;
}

function element(input, written) {
  const value = written.trim();
  if (input.datatype === "BYTES") {
    return written;
  }
  if (input.datatype === "BOOL") {
    return value === "true" || value === "1";
  }
  if (["NaN", "Infinity", "-Infinity"].includes(value)) {
    return value;
  }
  // What is no number goes as it is: the server says what it expects.
  return value !== "" && Number.isFinite(Number(value)) ? Number(value) : written;
}

function parse(value, name) {
  try {
    return JSON.parse(value);
  } catch (error) {
    throw new Error(`${name}: this is not JSON: ${error.message}`);
  }
}

function request() {
  if (facts.scripted) {
    return { path: "/score", body: $("input-body").value };
  }
  const inputs = [];
  for (const input of facts.inputs) {
    const read = readers.get(input.name);
    if (read) {
      inputs.push({ name: input.name, datatype: input.datatype, ...read() });
    }
  }
  return { path: `/v2/models/${encodeURIComponent(facts.name)}/infer`, body: JSON.stringify({ inputs }) };
}

function useExample() {
  for (const [name, value] of Object.entries(facts.example)) {
    writers.get(name)?.(value);
  }
  same();
}

// The prediction.

async function predict(event) {
  event.preventDefault();
  fail("");
  let wanted;
  try {
    wanted = request();
  } catch (error) {
    fail(error.message);
    return;
  }
  $("predict").disabled = true;
  const began = performance.now();
  try {
    const read = await ask(wanted.path, wanted.body);
    const answer = await read.text();
    const took = performance.now() - began;
    const value = JSON.parse(answer || "null");
    $("token-row").hidden = read.status !== 401 && !$("token").value;
    if (!read.ok) {
      fail(value?.error || `${read.status} ${read.statusText}`);
      return;
    }
    $("latency").textContent = `${took.toFixed(1)} ms, network included`;
    if (value && Array.isArray(value.outputs)) {
      $("outputs").replaceChildren(...value.outputs.flatMap(output));
    } else {
      $("outputs").replaceChildren(json(value));
    }
  } catch (error) {
    fail(`no answer: ${error.message}`);
  } finally {
    $("predict").disabled = false;
  }
}

function output(tensor) {
  const parts = [make("h3", {}, `${tensor.name} `, make("small", { className: "quiet" }, `${tensor.datatype} ${show(tensor.shape)}`))];
  const ranked = ranking(tensor);
  if (ranked) {
    const list = make("ol", { className: "bars" });
    for (const { index, score, value } of ranked.top) {
      const bar = make("meter", { min: 0, max: 1, value: score });
      bar.setAttribute("aria-hidden", "true");
      list.append(make("li", {}, make("span", {}, labels[index] || `class ${index}`), bar, make("span", { title: `${value}` }, ranked.probabilities ? `${(100 * score).toFixed(1)} %` : number(value))));
    }
    parts.push(list, labelChooser());
  } else if (tensor.data.length <= MOST_SHOWN) {
    parts.push(table(tensor));
  }
  const detail = make("details", {}, make("summary", {}, "as JSON"), json(tensor.data));
  parts.push(detail);
  return parts;
}

function table({ shape, data }) {
  const columns = shape.length > 1 ? shape[shape.length - 1] : 1;
  const body = make("tbody");
  for (let at = 0; at < data.length; at += columns) {
    body.append(make("tr", {}, ...data.slice(at, at + columns).map((value) => make("td", { className: "value" }, number(value)))));
  }
  return make("div", { className: "scroll" }, make("table", {}, body));
}

function labelChooser() {
  const id = "labels";
  const chooser = make("input", { type: "file", id, accept: ".txt,text/plain" });
  chooser.addEventListener("change", async () => {
    labels = (await chooser.files[0].text()).split(/\r?\n/).map((line) => line.trim());
    $("form").requestSubmit();
  });
  return make("details", {}, make("summary", {}, "names of the classes"), make("label", { htmlFor: id }, "A text file, a name a line ", chooser));
}

function json(value) {
  const written = JSON.stringify(value, null, 1);
  return make("pre", { tabIndex: 0 }, written.length > 20000 ? `${written.slice(0, 20000)} …` : written);
}

function fail(message) {
  $("error").hidden = !message;
  $("error").textContent = message;
}

// The same from elsewhere, and what the model takes and gives.

function same() {
  if (!facts) {
    return;
  }
  let wanted;
  try {
    wanted = request();
  } catch {
    return;
  }
  const url = location.origin + wanted.path;
  const large = wanted.body.length > 4000;
  const token = $("token").value ? " -H 'Authorization: Bearer TOKEN'" : "";
  const quoted = wanted.body.replaceAll("'", "'\\''");
  $("curl").textContent = `curl ${url}${token} -H 'Content-Type: application/json' -d ${large ? "@request.json" : `'${quoted}'`}`;
  const literal = large ? 'json.load(open("request.json"))' : pythonLiteral(wanted.body);
  const header = token ? `, headers={"Authorization": "Bearer TOKEN"}` : "";
  $("python").textContent = `import json\n\nimport requests\n\nbody = ${literal}\nanswer = requests.post("${url}", json=body${header})\nanswer.raise_for_status()\nprint(answer.json())`;
}

function pythonLiteral(body) {
  return `json.loads(r'''${body}''')`;
}

function signature() {
  const row = (side) => (tensor) =>
    make("tr", {}, make("td", { className: "quiet" }, side), make("td", {}, tensor.name), make("td", {}, tensor.datatype), make("td", {}, show(tensor.shape)));
  $("tensors").replaceChildren(...facts.inputs.map(row("input")), ...facts.outputs.map(row("output")));
  $("signature").parentElement.hidden = facts.scripted;
  $("graph-section").hidden = facts.graph === false;
}

function showGraph() {
  const frame = $("graph-frame");
  $("show-graph").hidden = true;
  frame.hidden = false;
  frame.src = "/page/graph/";
}

$("form").addEventListener("submit", predict);
$("example").addEventListener("click", useExample);
$("show-graph").addEventListener("click", showGraph);
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
start();
