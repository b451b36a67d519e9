import { curl, isLarge, python } from "./elsewhere.js";
import { $, make } from "./elements.js";
import { layout, elements, SCALES } from "./picture.js";
import { present } from "./prediction.js";
import { count, filled, flatten, fromText, nested, show, startShape, toText, whole } from "./tensors.js";

const MAX_FIELDS = 16;

let facts;
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
    await script();
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

async function script() {
  const described = await ask("/swagger.json").then((read) => (read.ok ? read.json() : {}), () => ({}));
  const sample = described.definitions?.ServiceInput?.example ?? { data: [[1, 2, 3, 4]] };
  const area = make("textarea", { id: "input-body", rows: 8, spellcheck: false, value: toText(sample) });
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
  const single = shape.length > 0 && count(shape) <= MAX_FIELDS && input.shape.slice(1).every(Number.isInteger);
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
    area.value = shown ? toText(nested(data, of)) : `(${data.length} elements, filled in; type here to replace them)`;
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
    return { true: true, 1: true, false: false, 0: false }[value] ?? written;
  }
  if (/^[+-]?\d+$/.test(value)) {
    return whole(value.replace("+", ""));
  }
  // What is no number goes as it is: the server says what it expects.
  return value !== "" && Number.isFinite(Number(value)) ? Number(value) : written;
}

function parse(value, name) {
  try {
    return fromText(value);
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
  // The protocol has no form for sequences and maps.
  if (facts.outputs.some((output) => output.datatype.includes("("))) {
    const named = inputs.map(({ name, shape, data }) => [name, nested(data, shape)]);
    return { path: "/score", body: toText({ data: Object.fromEntries(named) }) };
  }
  return { path: `/v2/models/${encodeURIComponent(facts.name)}/infer`, body: toText({ inputs }) };
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
    const value = read.headers.get("content-type")?.includes("json") ? fromText(answer || "null") : answer;
    $("token-row").hidden = read.status !== 401 && !$("token").value;
    if (!read.ok) {
      fail(value?.error || `${read.status} ${read.statusText}`);
      return;
    }
    $("latency").textContent = `${took.toFixed(1)} ms, network included`;
    present($("outputs"), value, facts);
  } catch (error) {
    fail(`no answer: ${error.message}`);
  } finally {
    $("predict").disabled = false;
  }
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
  const token = Boolean($("token").value);
  $("curl").textContent = curl(url, wanted.body, token);
  try {
    $("python").textContent = python(url, wanted.body, token);
  } catch (error) {
    $("python").textContent = `# The body is not JSON: ${error.message}`;
  }
  $("save").hidden = !isLarge(wanted.body);
}

function save() {
  const link = make("a", { download: "request.json", href: URL.createObjectURL(new Blob([request().body])) });
  link.click();
  URL.revokeObjectURL(link.href);
}

function signature() {
  const row = (side) => (tensor) =>
    make("tr", {}, make("td", { className: "quiet" }, side), make("td", {}, tensor.name), make("td", {}, tensor.datatype), make("td", {}, tensor.datatype.includes("(") ? "" : show(tensor.shape)));
  $("tensors").replaceChildren(...facts.inputs.map(row("input")), ...facts.outputs.map(row("output")));
  $("signature").parentElement.hidden = facts.scripted;
  $("graph-section").hidden = facts.graph === false;
}

// The frame asks its page, which knows the token.
window.structure = () => ask("/page/model.onnx");

function showGraph() {
  const frame = $("graph-frame");
  $("show-graph").hidden = true;
  frame.hidden = false;
  frame.src = "/page/graph/";
}

$("form").addEventListener("submit", predict);
$("example").addEventListener("click", useExample);
$("show-graph").addEventListener("click", showGraph);
$("save").addEventListener("click", save);
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = $(button.dataset.copy);
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } else {
      // Browsers lend the clipboard to pages of https and of this machine only.
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
start();
