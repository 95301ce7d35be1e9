// The page at /docs: /openapi.json for people, and a form to try each route. Nothing comes from another host.

import { byId, make, spellMs } from "./dom.js";
import { resolve, spell } from "./docs_schema.js";
import { askWho, setUpWho, withPass } from "./who.js";

const SHOWN_CHARACTERS = 20_000;
const METHODS = ["get", "post", "put", "patch", "delete"];

let root = {};

const code = (text) => make("code", { textContent: text });
const part = (text) => make("h3", { className: "part", textContent: text });

/** Rows of cells as a table that scrolls by itself where the window is narrow. */
function table(titles, rows) {
  const head = make("tr", {}, ...titles.map((title) => make("th", { scope: "col", textContent: title })));
  const lines = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
  const whole = make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines));
  return make("div", { className: "scroll" }, whole);
}

/** Text that scrolls, for the keyboard too. */
function box(text, label) {
  const element = make("pre", { textContent: text, tabIndex: 0, ariaLabel: label });
  element.setAttribute("role", "group");
  return element;
}

function listParameters(parameters) {
  if (!parameters.length) return [];
  const rows = parameters.map((parameter) => [
    code(parameter.name),
    parameter.in + (parameter.required ? ", required" : ""),
    spell(parameter.schema, root),
    parameter.description ?? "",
  ]);
  return [part("Parameters"), table(["Name", "Where", "Type", "Meaning"], rows)];
}

function listBodies(body) {
  if (!body) return [];
  const kinds = new Map(); // media types that take the same are told once
  for (const [kind, content] of Object.entries(body.content)) {
    const text = spell(content.schema, root);
    kinds.set(text, [...(kinds.get(text) ?? []), kind]);
  }
  const parts = [...kinds].map(([text, names]) =>
    make("div", {}, make("p", { className: "quiet" }, code(names.join(", "))), box(text, `Body: ${names[0]}`)),
  );
  return [part("Body"), ...(body.description ? [make("p", { textContent: body.description })] : []), ...parts];
}

function listAnswers(responses) {
  const entries = Object.entries(responses).map(([status, reference]) => {
    const response = resolve(reference, root);
    const title = make("summary", {}, make("strong", { textContent: status }), ` ${response.description}`);
    const contents = Object.entries(response.content ?? {}).map(([kind, content]) =>
      make("div", {}, make("p", { className: "quiet" }, code(kind)), box(spell(content.schema, root), `${status}: ${kind}`)),
    );
    return make("details", {}, title, ...(contents.length ? contents : [make("p", { textContent: "No body." })]));
  });
  return [part("Answers"), make("div", { className: "answers" }, ...entries)];
}

// ---- trying a route ----

function firstExample(content) {
  if (content.example !== undefined) return content.example;
  return Object.values(content.examples ?? {})[0]?.value;
}

/** A field for each parameter; what is left empty is not sent. */
function askParameters(parameters) {
  return parameters.map((parameter) => {
    const input = make("input", { type: "text", value: "", autocomplete: "off" });
    const examples = parameter.schema.examples ?? parameter.schema.enum ?? [];
    if (parameter.required) input.value = String(examples[0] ?? parameter.schema.minimum ?? "");
    return { parameter, input, row: make("label", { className: "field" }, code(parameter.name), input) };
  });
}

/** A field for the body: text where it is JSON, a file where it can be one. */
function askBody(body) {
  if (!body) return { rows: [], read: () => undefined };
  const example = firstExample(body.content["application/json"] ?? {});
  const text = make("textarea", { value: JSON.stringify(example ?? {}, null, 2), ariaLabel: "Body as JSON", spellcheck: false });
  const rows = [make("div", { className: "body" }, text)];
  const file = make("input", { type: "file" });
  const takesFiles = Object.keys(body.content).some((kind) => !kind.includes("json"));
  if (takesFiles) rows.push(make("label", { className: "field" }, "or a file", file));
  const read = () => (file.files.length ? file.files[0] : text.value);
  return { rows, read };
}

function place(path, fields) {
  const query = new URLSearchParams();
  const headers = new Headers();
  let address = path.slice(1);
  for (const { parameter, input } of fields) {
    if (parameter.in === "path") address = address.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (!input.value) continue;
    else if (parameter.in === "query") query.set(parameter.name, input.value);
    else headers.set(parameter.name, input.value);
  }
  return { address: query.size ? `${address}?${query}` : address || ".", headers };
}

async function readAnswer(answer) {
  const kind = answer.headers.get("Content-Type") ?? "";
  if (!/json|text|svg/.test(kind)) return `${(await answer.arrayBuffer()).byteLength} bytes of ${kind || "no type"}`;
  const text = await answer.text();
  const shown = kind.includes("json") && text ? JSON.stringify(JSON.parse(text), null, 2) : text;
  return shown.length > SHOWN_CHARACTERS ? `${shown.slice(0, SHOWN_CHARACTERS)}\n…` : shown;
}

async function send(method, address, headers, body, result) {
  const started = performance.now();
  try {
    if (typeof body === "string") headers.set("Content-Type", "application/json");
    const signed = withPass(headers);
    const answer = await fetch(address, { method, headers: signed, body });
    if (answer.status === 401) askWho(signed);
    const text = await readAnswer(answer);
    const timing = answer.headers.get("Server-Timing") ?? "";
    const line = `${answer.status} ${answer.statusText}, ${spellMs(performance.now() - started)}; at the server: ${timing}`;
    result.replaceChildren(make("p", { textContent: line }), box(text, "Answer"));
  } catch (error) {
    result.replaceChildren(make("p", { className: "amiss", textContent: `No answer: ${error.message}` }));
  }
}

function offerTry(method, path, parameters, body) {
  const fields = askParameters(parameters);
  const wanted = askBody(body);
  const result = make("div", { className: "result" });
  result.setAttribute("role", "status");
  const button = make("button", { className: "main", type: "submit", textContent: "Send" });
  const form = make("form", { className: "try" }, ...fields.map(({ row }) => row), ...wanted.rows, button, result);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    const { address, headers } = place(path, fields);
    await send(method.toUpperCase(), address, headers, wanted.read(), result);
    button.disabled = false;
  });
  return [part("Try it"), form];
}

// ---- all routes ----

function showRoute(path, method, operation) {
  const badge = make("span", { className: `method ${method}`, textContent: method.toUpperCase() });
  const line = make("summary", {}, badge, code(path), make("span", { className: "quiet", textContent: operation.summary }));
  const route = make("details", { className: "route", id: operation.operationId }, line);
  route.dataset.words = `${method} ${path} ${operation.summary} ${operation.tags}`.toLowerCase();
  route.addEventListener("toggle", () => {
    if (!route.open || route.children.length > 1) return;
    const parameters = (operation.parameters ?? []).map((parameter) => resolve(parameter, root));
    const parts = [
      ...(operation.description ? [make("p", { textContent: operation.description })] : []),
      ...listParameters(parameters),
      ...listBodies(operation.requestBody),
      ...listAnswers(operation.responses),
      ...offerTry(method, path, parameters, operation.requestBody),
    ];
    route.append(make("div", { className: "detail" }, ...parts));
  });
  return route;
}

function showAll() {
  byId("version").textContent = root.info.version;
  byId("about").textContent = root.info.description;
  const operations = Object.entries(root.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => [path, method, item[method]]),
  );
  const sections = root.tags.map(({ name }) => {
    const routes = operations.filter(([, , operation]) => operation.tags.includes(name));
    return make("section", {}, make("h2", { textContent: name }), ...routes.map((route) => showRoute(...route)));
  });
  byId("routes").replaceChildren(...sections);
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.setAttribute("open", "");
}

function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const section of byId("routes").children) {
    const routes = [...section.querySelectorAll(".route")];
    for (const route of routes) route.hidden = !words.every((word) => route.dataset.words.includes(word));
    const shown = routes.filter((route) => !route.hidden).length;
    section.hidden = shown === 0;
    count += shown;
  }
  byId("count").textContent = count === 1 ? "1 route" : `${count} routes`;
}

async function start() {
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    root = await answer.json();
  } catch (error) {
    byId("count").textContent = `The routes cannot be shown: ${error.message}. Reload the page to try again.`;
    return;
  }
  showAll();
  setUpWho();
  byId("filter").addEventListener("input", filter);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.matches("input, textarea, select")) return;
    event.preventDefault();
    byId("filter").focus();
  });
  filter();
}

start();
