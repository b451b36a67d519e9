// What Netron's view asks of the page it is in. It opens the one model that this server has, keeps nothing in the
// browser, sends nothing anywhere, and offers no menu.
import * as base from "./base.js";
import * as view from "./view.js";

const MODEL = "../model.onnx";

class Host {
  constructor() {
    this.window = window;
    this.document = document;
    this.version = "0.0.0";
    this.type = "Page";
    this._options = new Map();
    this._assets = new Map();
  }

  environment(name) {
    const known = { name: "Graph", type: "Page", version: "0.0.0", packaged: false, menu: false, repository: "#" };
    return known[name];
  }

  async view(shown) {
    this._view = shown;
  }

  async start() {
    const read = await (parent.structure ? parent.structure() : fetch(MODEL));
    if (!read.ok) {
      const answer = await read.json().catch(() => ({}));
      await this.message(answer.error || `the model's structure cannot be read (${read.status})`, true, null);
      parent.postMessage({ graph: "failed" }, location.origin);
      return;
    }
    const stream = new base.BinaryStream(new Uint8Array(await read.arrayBuffer()));
    this._view.show("welcome spinner");
    try {
      if (await this._view.open(new Context(this, stream))) {
        this._view.show(null);
        document.title = "Graph of the model";
        parent.postMessage({ graph: "shown" }, location.origin);
      }
    } catch (error) {
      await this.message(`the graph cannot be shown: ${error.message}`, true, null);
      parent.postMessage({ graph: "failed" }, location.origin);
    }
  }

  async require(id) {
    return import(`${id}.js`);
  }

  worker(id) {
    return new Worker(`${id}.js`, { type: "module" });
  }

  async asset(file) {
    if (!this._assets.has(file)) {
      this._assets.set(file, fetch(file).then((read) => (read.ok ? read.text() : Promise.reject(new Error(file)))));
    }
    return this._assets.get(file);
  }

  async fetch(file) {
    throw new Error(`'${file}' holds weights, which are not sent`);
  }

  async message(text, alert, action) {
    const button = document.getElementById("message-button");
    document.getElementById("message-text").innerText = text || "";
    button.style.display = action ? "" : "none";
    button.innerText = action || "";
    const before = document.body.getAttribute("class");
    document.body.setAttribute("class", alert ? "alert" : `${before || ""} notification`);
    if (!action) {
      return 0;
    }
    return new Promise((resolve) => {
      button.onclick = () => {
        document.body.setAttribute("class", before || "");
        resolve(0);
      };
    });
  }

  async save(name, extension, path) {
    return `${path}.${extension}`;
  }

  async export(file, blob) {
    const link = document.createElement("a");
    link.download = file;
    link.href = URL.createObjectURL(blob);
    link.click();
    URL.revokeObjectURL(link.href);
  }

  async execute() {}
  openURL() {}
  exception(error) {
    console.warn(error);
  }
  event() {}
  update() {}
  get(name) {
    return this._options.get(name);
  }
  set(name, value) {
    this._options.set(name, value);
  }
  delete(name) {
    this._options.delete(name);
  }
}

class Context {
  constructor(host, stream) {
    this._host = host;
    this.stream = stream;
    this.identifier = "model.onnx";
    this.name = null;
  }

  async asset(file) {
    return this._host.asset(file);
  }

  async fetch(file) {
    return this._host.fetch(file);
  }

  async require(id) {
    return this._host.require(id);
  }

  error(error) {
    this._host.exception(error);
  }
}

const shown = new view.View(new Host());
window.__view__ = shown;
shown.start();
