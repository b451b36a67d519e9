// What is shown of an answer: ranked classes, tables, and JSON.
import { columnsOf, likeliest, number, ranking, show, summary, tensorOf, toText } from "./tensors.js";
import { make } from "./elements.js";

const MAX_SHOWN = 400;
const MAX_JSON_LENGTH = 20000;
let labels = [];

/** Replace what `place` shows by the answer of the inference protocol, of /score, or of a script. */
export function present(place, answer, facts) {
  let parts;
  if (answer && Array.isArray(answer.outputs)) {
    parts = () => answer.outputs.flatMap((tensor) => output(tensor, again));
  } else if (facts.scripted) {
    parts = () => [json(answer)];
  } else {
    parts = () => facts.outputs.flatMap(({ name, datatype }) => scored(name, datatype, answer[name], again));
  }
  const again = () => place.replaceChildren(...parts());
  again();
}

function scored(name, datatype, value, again) {
  if (Array.isArray(value) && value.length && value.every((row) => row && typeof row === "object" && !Array.isArray(row))) {
    return maps(name, datatype, value);
  }
  try {
    return output({ name, datatype, ...tensorOf(value) }, again);
  } catch {
    return [heading(name, datatype), json(value)];
  }
}

function output(tensor, again) {
  const parts = [heading(tensor.name, `${tensor.datatype} ${show(tensor.shape)}`)];
  const ranked = ranking(tensor);
  if (ranked) {
    parts.push(bars(ranked.top.map(({ index, ...rest }) => ({ title: labels[index] || `class ${index}`, ...rest })), ranked.probabilities));
    const all = tensor.data.length;
    const which = all > ranked.top.length ? `The highest ${ranked.top.length} of ${all}. ` : "";
    parts.push(quiet(ranked.probabilities ? which : `${which}These are scores; the bars show their softmax.`));
    parts.push(labelChooser(again));
  } else if (tensor.data.length <= MAX_SHOWN) {
    parts.push(table(tensor));
    parts.push(...(columnsOf(tensor) > 1 && likeliest(tensor) ? [labelChooser(again)] : []));
  } else {
    parts.push(quiet(summary(tensor)));
  }
  parts.push(make("details", {}, make("summary", {}, "as JSON"), json(tensor.data)));
  return parts;
}

/** Rows of scores by class, as scikit-learn's classifiers give them unless told otherwise. */
function maps(name, datatype, rows) {
  const parts = [heading(name, datatype)];
  if (rows.length === 1 && Object.values(rows[0]).every((value) => typeof value === "number" && value >= 0 && value <= 1)) {
    const scores = Object.entries(rows[0]).sort(([, a], [, b]) => b - a);
    parts.push(bars(scores.slice(0, 5).map(([title, score]) => ({ title, score, value: score })), true));
  } else {
    const names = Object.keys(rows[0]);
    parts.push(grid(names, rows.slice(0, MAX_SHOWN).map((row) => names.map((each) => row[each])), null));
  }
  parts.push(make("details", {}, make("summary", {}, "as JSON"), json(rows)));
  return parts;
}

function bars(entries, probabilities) {
  const list = make("ol", { className: "bars" });
  for (const { title, score, value } of entries) {
    const bar = make("meter", { min: 0, max: 1, value: score });
    bar.setAttribute("aria-hidden", "true");
    const told = probabilities ? `${(100 * score).toFixed(1)} %` : number(value);
    list.append(make("li", {}, make("span", {}, title), bar, make("span", { title: `${value}` }, told)));
  }
  return list;
}

function table(tensor) {
  const columns = columnsOf(tensor);
  const rows = [];
  for (let at = 0; at < tensor.data.length; at += columns) {
    rows.push(tensor.data.slice(at, at + columns));
  }
  const names = columns > 1 ? Array.from({ length: columns }, (_, index) => labels[index] || `${index}`) : null;
  return grid(names, rows, likeliest(tensor));
}

function grid(names, rows, best) {
  const body = make("tbody");
  rows.forEach((row, at) => {
    const cells = row.map((value, column) => make("td", { className: best && best[at] === column ? "value best" : "value" }, number(value)));
    const head = rows.length > 1 ? [make("th", { scope: "row", className: "quiet" }, `${at}`)] : [];
    body.append(make("tr", {}, ...head, ...cells));
  });
  const made = make("table", {}, body);
  if (names) {
    const corner = rows.length > 1 ? [make("td")] : [];
    made.prepend(make("thead", {}, make("tr", {}, ...corner, ...names.map((name) => make("th", { scope: "col" }, name)))));
  }
  const scrolled = make("div", { className: "scroll", tabIndex: 0, role: "group" }, made);
  scrolled.setAttribute("aria-label", "Values");
  return scrolled;
}

function labelChooser(again) {
  const chooser = make("input", { type: "file", className: "labels", accept: ".txt,text/plain" });
  chooser.addEventListener("change", async () => {
    labels = (await chooser.files[0].text()).split(/\r?\n/).map((line) => line.trim());
    again();
  });
  return make("details", {}, make("summary", {}, "names of the classes"), make("label", {}, "A text file, a name a line ", chooser));
}

function heading(name, about) {
  return make("h3", {}, `${name} `, make("small", { className: "quiet" }, about));
}

function quiet(words) {
  return make("p", { className: "quiet note", hidden: !words }, words);
}

function json(value) {
  const written = toText(value, 1);
  return make("pre", { tabIndex: 0 }, written.length > MAX_JSON_LENGTH ? `${written.slice(0, MAX_JSON_LENGTH)} …` : written);
}
