"use strict";
// Lists what /v1/openapi.json describes. Everything is put in as text, never as markup.

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function field(parent, label, multiline) {
  return element(multiline ? "textarea" : "input", "", element("label", label, parent));
}

function operation(parent, path, method, described) {
  const box = element("details", "", parent);
  const head = element("summary", "", box);
  element("span", method.toUpperCase(), head).className = "method";
  element("code", path, head);
  element("span", described["x-action"], head).className = "rule";
  element("p", described.summary || described.description, box);
  const inputs = (described.parameters || []).map((it) => {
    const words = `${it.name} (${it.in}${it.required ? ", required" : ""}) ${it.description || ""}`;
    return [it, field(box, words)];
  });
  const body = described.requestBody ? field(box, "body (JSON)", true) : null;
  if (body) body.value = "{}";
  const go = element("button", "Send", box);
  const shown = element("pre", "", box);
  go.addEventListener("click", async () => {
    let url = path;
    const query = new URLSearchParams();
    const headers = {};
    const token = document.getElementById("token").value;
    if (token) headers.Authorization = `Bearer ${token}`;
    for (const [it, input] of inputs) {
      if (it.in === "path") url = url.replace(`{${it.name}}`, encodeURIComponent(input.value));
      else if (input.value && it.in === "query") query.set(it.name, input.value);
      else if (input.value && it.in === "header") headers[it.name] = input.value;
    }
    if (body) headers["Content-Type"] = "application/json";
    const asked = query.size ? `${url}?${query}` : url;
    try {
      const answer = await fetch(asked, { method: method.toUpperCase(), headers, body: body ? body.value : undefined });
      const text = await answer.text();
      let pretty = text;
      try { pretty = JSON.stringify(JSON.parse(text), null, 2); } catch { /* no JSON */ }
      shown.textContent = `${answer.status} ${answer.headers.get("location") || ""}\n${pretty}`;
    } catch (error) {
      shown.textContent = String(error);
    }
  });
}

async function start() {
  const described = await (await fetch("/v1/openapi.json")).json();
  document.getElementById("about").textContent = `${described.info.description} Version ${described.info.version}.`;
  const parent = document.getElementById("operations");
  for (const [path, item] of Object.entries(described.paths)) {
    for (const method of ["get", "post", "put", "patch", "delete"]) {
      if (item[method]) operation(parent, path, method, item[method]);
    }
  }
}

start();
