// The routes of this server, as its OpenAPI describes them.

import { startTheme } from "./tabs.js";

function made(tag, content, ...children) {
  const element = document.createElement(tag);
  element.textContent = content;
  element.append(...children);
  return element;
}

function table(headings, rows) {
  const head = made("tr", "", ...headings.map((text) => made("th", text)));
  const body = rows.map((row) => made("tr", "", ...row.map((text) => made("td", text))));
  return made("table", "", made("thead", "", head), made("tbody", "", ...body));
}

function kindOf(schema) {
  if (schema.enum) return schema.enum.join(", ");
  if (schema.const) return schema.const;
  if (schema.type === "array") return `list of ${kindOf(schema.items)}`;
  return schema.contentMediaType || schema.format === "binary" ? "file" : schema.type ?? "any";
}

function fieldsOf(operation, schemas) {
  const content = operation.requestBody?.content ?? {};
  const reference = Object.values(content)[0]?.schema.$ref?.split("/").at(-1);
  const form = schemas[reference] ?? {};
  return Object.entries(form.properties ?? {}).map(([name, schema]) => [
    name,
    kindOf(schema),
    form.required?.includes(name) ? "needed" : JSON.stringify(schema.default ?? ""),
    schema.description ?? "",
  ]);
}

function article(path, method, operation, schemas) {
  const title = made("h2", "", made("code", `${method.toUpperCase()} ${path}`));
  const part = made("article", "", title, made("p", operation.summary ?? ""));
  part.className = "card";
  const fields = fieldsOf(operation, schemas);
  if (fields.length) part.append(table(["field", "kind", "default", "meaning"], fields));
  const answers = Object.entries(operation.responses).map(([status, { description, content }]) => [
    status, Object.keys(content ?? {}).join(", "), description,
  ]);
  part.append(table(["answer", "form", "meaning"], answers));
  return part;
}

startTheme();
const api = await (await fetch("/openapi.json")).json();
const parts = [];
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    parts.push(article(path, method, operation, api.components?.schemas ?? {}));
  }
}
document.getElementById("routes").replaceChildren(...parts);
document.documentElement.dataset.ready = "yes";
