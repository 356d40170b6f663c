// The page around the worker: it sends files and wishes there, and shows what comes back as text.

const part = (name) => document.getElementById(`planner-${name}`);
const form = document.getElementById("planner");
const [status, problem, shown] = ["status", "error", "answer"].map(part);
const fields = { target: part("target"), memory: part("memory") };

let files = null; // chosen and not yet lent
let lent = [];
let waiting = false;
let again = false;

// A worker from a blob is bound by this page's policy (site_hooks.py); one from an address would have none.
const source = `import ${JSON.stringify(new URL("worker.js", import.meta.url))};`;
const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })), { type: "module" });
worker.onmessage = ({ data }) => {
  if (data.progress) status.textContent = data.progress;
  else if (data.ready) {
    if (!waiting) status.textContent = "Ready";
  } else settle(data);
};
worker.onerror = () =>
  settle({ failed: "the worker does not start: serve this site, a page opened as a file may start none" });

function wishes() {
  const target = form.elements.target.value || fields.target.value;
  return { target, memory: fields.memory.value };
}

function plan() {
  if (!lent.length) return complain("Choose a model first.");
  again = waiting;
  if (waiting) return;
  waiting = true;
  shown.setAttribute("aria-busy", "true");
  worker.postMessage({ files, ...wishes() });
  files = null;
}

function settle({ answer, failed, read }) {
  waiting = false;
  shown.removeAttribute("aria-busy");
  if (again) return plan();
  complain("");
  shown.hidden = !answer || "text" in answer;
  if (failed) {
    status.textContent = "";
    complain(`This page does not work here: ${failed}`);
  } else if ("text" in answer) {
    status.textContent = "No plan";
    complain(answer.text, answer.field);
  } else {
    show(answer);
    const size = lent.reduce((sum, file) => sum + file.size, 0);
    status.textContent = `Planned. Read ${megabytes(read)} of ${megabytes(size)}; nothing left this browser.`;
  }
}

const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

/** Say what is wrong, and of which field. */
function complain(text, field) {
  problem.textContent = text;
  problem.hidden = !text;
  for (const [name, input] of Object.entries(fields)) {
    for (const [attribute, value] of [["aria-invalid", "true"], ["aria-describedby", problem.id]]) {
      if (name === field) input.setAttribute(attribute, value);
      else input.removeAttribute(attribute);
    }
  }
}

function choose(list) {
  if (!list.length) return;
  files = lent = [...list];
  plan();
}

/** An element with what it holds: elements and text, never markup. */
function element(tag, attributes, ...content) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...content);
  return made;
}

const heading = (level, text) => element(`h${level}`, {}, text);
const paragraph = (text) => element("p", {}, ...words(text));
const list = (attributes, texts) => element("ul", attributes, ...texts.map((text) => element("li", {}, ...words(text))));

/** Text, with what stands between backticks as code. */
const words = (text) => text.split("`").map((each, number) => (number % 2 ? element("code", {}, each) : each));

function table(caption, { heads, rows }) {
  // Figures stand right, below each other.
  const figures = heads.map((_, column) => rows.every((row) => /^[-\d]/.test(row[column])));
  const looks = (column) => (figures[column] ? { class: "planner-number" } : {});
  const row = ([name, ...values]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      ...values.map((value, number) => element("td", looks(number + 1), value)),
    );
  const made = element(
    "table",
    { class: "planner-table" }, // the theme styles only those without a class
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...heads.map((head, column) => element("th", { scope: "col", ...looks(column) }, head)))),
    element("tbody", {}, ...rows.map(row)),
  );
  // A wide table scrolls in a region of its own, which the keyboard must reach.
  return element("div", { class: "planner-scroll", tabindex: 0, role: "region", "aria-label": caption }, made);
}

function block(title, text) {
  const parts = [element("p", { class: "planner-title" }, title), element("pre", {}, text)];
  if (navigator.clipboard) {
    const button = element("button", { type: "button", "aria-label": `Copy: ${title}` }, "Copy");
    button.onclick = async () => {
      await navigator.clipboard.writeText(text);
      status.textContent = `Copied: ${title}`;
    };
    parts[0].append(button);
  }
  return element("div", {}, ...parts);
}

function program({ name, blocks, refused, notes }) {
  const parts = [heading(4, name), ...blocks.map(({ title, text }) => block(title, text))];
  if (refused) parts.push(paragraph(`Not by its own settings: ${refused}`));
  if (notes.length) parts.push(list({}, notes));
  return parts;
}

function method({ method: name, verdict, lines, command, programs }, number) {
  const parts = [list({}, lines)];
  if (command) parts.push(block(`${name} on the command line`, command));
  const made = element("details", {}, element("summary", {}, `${name}: ${verdict}`), ...parts);
  made.append(...programs.flatMap(program));
  made.open = number === 0;
  return made;
}

function show(answer) {
  const parts = [heading(2, answer.path), ...[answer.head, ...answer.lines].map(paragraph)];
  if (answer.methods) parts.push(table("Methods side by side", answer.methods));
  parts.push(...answer.below.map(paragraph));
  if (answer.warnings.length) {
    const title = element("p", { class: "admonition-title" }, "Before you use it");
    parts.push(element("div", { class: "admonition warning" }, title, list({}, answer.warnings)));
  }
  parts.push(block("The same on the command line", answer.command));
  if (answer.memory) parts.push(heading(3, "Memory"), table("Memory at the target", answer.memory));
  parts.push(heading(3, "What to run"), ...answer.plans.map(method));
  parts.push(heading(3, "Layers"), table("Layers as llama.cpp runs them", answer.layers));
  const whole = element("pre", { tabindex: 0, role: "region", "aria-label": "Answer as JSON" }, answer.json);
  parts.push(element("details", {}, element("summary", {}, "Everything as JSON"), whole));
  shown.replaceChildren(...parts);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  plan();
});
part("files").addEventListener("change", (event) => choose(event.target.files));
form.addEventListener("change", ({ target }) => {
  if (target === fields.target) part("free").checked = true;
  const unsaid = target === part("free") && !fields.target.value;
  if (unsaid) fields.target.focus();
  else if (target.type !== "file" && lent.length) plan();
});
// Wherever a file is dropped: beside the field the browser would open or save it.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  part("drop").classList.add("planner-over");
});
for (const end of ["dragleave", "drop", "dragend"]) {
  document.addEventListener(end, () => part("drop").classList.remove("planner-over"));
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  choose(event.dataTransfer.files);
});
