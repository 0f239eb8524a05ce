// Sends each image on its own, and shows what comes back. Nothing is stored.

const find = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const MOST_SHOWN_PATCHES = 120;

let about = null; // what the app is, once it is known
const ready = fetch("/about").then((response) => response.json()).then((found) => {
  about = found;
  introduce();
});
let results = []; // one for each image that was sent: {file name, answer or error}
let busy = false;
const waiting = [];

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const three = (number) => number.toFixed(3);
const signed = (number) => (number === null ? "–" : (number < 0 ? "−" : "+") + Math.abs(number).toFixed(3));
const positive = () => about.classes[about.classes.length - 1];

function introduce() {
  const count = about.models === 1 ? "One model tells" : `${about.models} models tell`;
  const study = about.training_images ? ` The study has ${about.training_images} images.` : "";
  find("about").textContent = `${count} ${about.classes.join(" and ")} apart, from patches of ${about.patch_size} pixels `
    + `and ${about.weights} weights of VGG16. Fitted ${about.protocol}.${study}`;
  find("limits").textContent = `PNG, JPEG, TIFF or BMP, 8-bit RGB, up to ${Math.round(about.most_bytes / 2 ** 20)} MB and `
    + `${about.most_pixels / 1e6} megapixels each`;
  if (about.classes.length === 2) find("probability-title").textContent = `probability of ${positive()}`;
}

function send(files) {
  for (const file of files) {
    const result = { name: file.name, file };
    results.push(result);
    waiting.push(result);
  }
  showTable();
  work();
}

async function work() {
  if (busy) return;
  busy = true;
  await ready; // images may be dropped sooner
  let first = null;
  while (waiting.length) {
    const result = waiting.shift();
    status(`Reading ${result.name}${waiting.length ? `, ${waiting.length} more waiting` : ""} …`);
    await ask(result);
    first ??= result.answer ? result : null;
    if (first === result) showDetail(result, false);
    showTable();
  }
  busy = false;
  const failed = results.filter((result) => result.error).length;
  const done = results.length - failed;
  status(`${done} ${done === 1 ? "image" : "images"} answered` + (failed ? `, ${failed} refused.` : "."));
}

async function ask(result) {
  if (result.file.size > about.most_bytes) {
    result.error = `larger than ${Math.round(about.most_bytes / 2 ** 20)} MB: send a smaller file`;
    return;
  }
  try {
    const response = await fetch(`/answer?name=${encodeURIComponent(result.name)}`, {
      method: "POST",
      headers: { "X-Requested-With": "pipeline-app", "Content-Type": "application/octet-stream" },
      body: result.file,
    });
    const said = await response.json();
    if (response.ok) result.answer = said;
    else result.error = said.error;
  } catch {
    result.error = "the app does not answer: is it still running in its terminal?";
  }
  result.file = null;
}

function status(text) {
  find("status").textContent = text;
}

function shownProbability(answer) {
  const place = about.classes.length === 2 ? 0 : about.classes.indexOf(answer.called);
  return answer.probabilities[place];
}

function showTable() {
  find("results").hidden = results.length === 0;
  find("rows").replaceChildren(...results.map(tableRow));
}

function tableRow(result) {
  const { answer, error } = result;
  if (error) {
    return element("tr", { class: "failed" }, element("td", {}, result.name),
      element("td", { colspan: 3 }, "refused"), element("td", {}, error));
  }
  if (!answer) return element("tr", {}, element("td", {}, result.name), element("td", { colspan: 4 }, "waiting …"));
  const open = element("button", { type: "button" }, result.name);
  open.addEventListener("click", () => showDetail(result, true));
  const row = element("tr", {}, element("td", {}, open), element("td", {}, answer.called),
    element("td", {}, three(shownProbability(answer))),
    element("td", {}, `${three(answer.lowest)} to ${three(answer.highest)}`),
    element("td", {}, answer.warning));
  if (result === shown) row.setAttribute("aria-current", "true");
  return row;
}

let shown = null;

function showDetail(result, jump) {
  shown = result;
  const { answer } = result;
  find("detail").hidden = false;
  find("detail-title").textContent = result.name;
  const probability = shownProbability(answer);
  find("called").textContent = `Called ${answer.called}: probability of ${answer.shown} ${three(probability)}`;
  find("warning").hidden = !answer.warning;
  find("warning").textContent = answer.warning ? `Beware: ${answer.warning}.` : "";
  showScale(answer, probability);
  find("overlay").src = answer.overlay;
  find("overlay").alt = `${result.name} with what each of its ${answer.patches.length} patches contributes`;
  showPatches(answer);
  showNearest(answer);
  offer("overlay-link", answer.overlay, `${stem(result.name)}-overlay.png`);
  offerJson(result);
  showTable();
  if (jump) find("detail-title").focus();
}

function showScale(answer, probability) {
  const at = (value) => `${(100 * value).toFixed(2)}%`;
  const parts = [
    drawn("rect", { x: 0, y: 12, width: "100%", height: 10, rx: 5, fill: "var(--line)" }),
    drawn("rect", { x: at(answer.lowest), y: 12, width: at(answer.highest - answer.lowest), height: 10, fill: "var(--band)" }),
  ];
  if (answer.threshold !== null) {
    parts.push(drawn("line", { x1: at(answer.threshold), x2: at(answer.threshold), y1: 4, y2: 30, stroke: "var(--ink)", "stroke-width": 2, "stroke-dasharray": "3 2" }));
  }
  parts.push(drawn("circle", { cx: at(probability), cy: 17, r: 8, fill: "var(--two)", stroke: "var(--paper)", "stroke-width": 2 }));
  const limit = answer.threshold === null ? "" : ` The dashed line is the threshold, ${three(answer.threshold)}.`;
  const text = `From 0 to 1: the point is the probability of ${answer.shown}, ${three(probability)}; the band is what single members of the models say, `
    + `${three(answer.lowest)} to ${three(answer.highest)}.${limit}`;
  find("scale").replaceChildren(drawn("svg", { "aria-hidden": "true" }, ...parts));
  find("scale").setAttribute("aria-label", text);
  find("scale-text").textContent = text;
}

function showPatches(answer) {
  const side = about.patch_size;
  const simple = answer.views === 1;
  const picture = () => drawn("image", { href: answer.picture, width: answer.width, height: answer.height, preserveAspectRatio: "none" });
  const frames = simple ? answer.patches.flatMap((patch, number) => frame(patch, number, side)) : [];
  const view = `0 0 ${answer.width} ${answer.height}`;
  const label = `The image with the numbers of its ${answer.patches.length} patches`;
  find("patched").replaceChildren(drawn("svg", { viewBox: view, role: "img", "aria-label": label }, picture(), ...frames));
  const tail = simple ? "numbered in scan order: the order in which the LSTM reads them"
    : `${answer.views} views of the image, one after another`;
  find("patched-text").textContent = `${answer.patches.length} patches of ${side} pixels, ${tail}.`;
  const some = simple ? answer.patches.slice(0, MOST_SHOWN_PATCHES) : [];
  find("patches").replaceChildren(...some.map((patch, number) => {
    const seen = drawn("svg", { viewBox: `${patch.x} ${patch.y} ${side} ${side}`, role: "img", "aria-label": `patch ${number + 1}` }, picture());
    const kind = patch.contribution > 0 ? "for" : "against";
    return element("li", {}, seen, element("p", {}, `${number + 1}: `, element("span", { class: kind }, signed(patch.contribution))));
  }));
}

function frame(patch, number, side) {
  const text = drawn("text", { x: patch.x + side * 0.06, y: patch.y + side * 0.19, "font-size": side * 0.14, "font-weight": 700,
    fill: "#fff", stroke: "#000", "stroke-width": side * 0.02, "paint-order": "stroke" });
  text.textContent = String(number + 1);
  return [drawn("rect", { x: patch.x, y: patch.y, width: side, height: side, fill: "none", stroke: "#fff", "stroke-width": side * 0.012 }), text];
}

function showNearest(answer) {
  find("no-nearest").hidden = about.training_images !== null;
  find("nearest").replaceChildren(...answer.nearest.map((near) => {
    const picture = near.picture
      ? element("img", { src: near.picture, alt: `training image ${near.image}` })
      : element("p", { class: "absent" }, "its file is not there any more");
    const kind = near.subtype ? `${near.label} (${near.subtype})` : near.label;
    const whose = near.case ? `, patient ${near.case}` : "";
    return element("li", {}, picture, element("p", {}, element("strong", {}, kind), `${whose}; distance ${near.distance.toFixed(2)}`),
      element("p", { class: "soft" }, near.image));
  }));
}

const stem = (name) => name.replace(/\.[^.]+$/, "");

function offer(id, address, name) {
  find(id).href = address;
  find(id).download = name;
}

function offerJson(result) {
  const { picture, overlay, nearest, row, ...kept } = result.answer;
  const near = nearest.map(({ picture: unused, ...rest }) => rest);
  const text = JSON.stringify({ ...kept, nearest: near, fingerprint: about.fingerprint, note: about.research }, null, 2);
  offer("json-link", `data:application/json;charset=utf-8,${encodeURIComponent(text)}`, `${stem(result.name)}.json`);
}

function csv() {
  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const rows = results.filter((result) => result.answer).map((result) => result.answer.row);
  return [about.columns, ...rows].map((row) => row.map((value) => quoted(String(value))).join(",")).join("\n") + "\n";
}

function download(text, name) {
  const link = element("a", { href: `data:text/csv;charset=utf-8,${encodeURIComponent(text)}`, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

find("files").addEventListener("change", (event) => {
  send(event.target.files);
  event.target.value = "";
});
find("csv").addEventListener("click", () => download(csv(), "predictions.csv"));
find("clear").addEventListener("click", () => {
  results = results.filter((result) => !result.answer && !result.error);
  shown = null;
  find("detail").hidden = true;
  status("");
  showTable();
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    find("drop").classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => find("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  send(event.dataTransfer.files);
});
