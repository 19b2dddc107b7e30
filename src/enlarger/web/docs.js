// The API reference, drawn from /openapi.json: each route with its request fields and its answer.

import { fill } from "./dom.js";
import { strings } from "./strings.js";

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// `name` in a description is code.
function prose(tag, text, className = "") {
  const made = element(tag, "", className);
  made.append(...text.split("`").map((part, index) => (index % 2 ? element("code", part) : part)));
  return made;
}

function resolve(schema, api) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split("/").reduce((place, name) => place[name], api);
}

function typeOf(schema, api) {
  const found = resolve(schema, api);
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.enum) return found.enum.join(" | ");
  if (found.type === "array") return `array of ${typeOf(found.items, api)}`;
  return found.type ?? "any";
}

function range(schema) {
  const parts = [];
  if (schema.exclusiveMinimum !== undefined) parts.push(`above ${schema.exclusiveMinimum}`);
  if (schema.minimum !== undefined) parts.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) parts.push(`up to ${schema.maximum}`);
  if (schema.default !== undefined) parts.push(`default ${JSON.stringify(schema.default)}`);
  const text = parts.join(", ");
  return text ? ` ${text[0].toUpperCase()}${text.slice(1)}.` : "";
}

function tableOf(schema, api, sent = false) {
  const table = element("table");
  const head = table.createTHead().insertRow();
  for (const title of strings.docs.columns) head.append(element("th", title));
  const body = table.createTBody();
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const row = body.insertRow();
    const required = sent && schema.required?.includes(name);
    row.insertCell().append(element("code", name));
    row.insertCell().textContent = typeOf(property, api) + (required ? ", required" : "");
    row.append(prose("td", (resolve(property, api).description ?? "") + range(property)));
  }
  const scroll = element("div", "", "scroll");
  scroll.append(table);
  return scroll;
}

function jsonSchema(part, api) {
  return resolve(part?.content?.["application/json"]?.schema, api);
}

function route(method, path, operation, api) {
  const section = element("section");
  const title = element("h2");
  title.append(element("span", method.toUpperCase(), "method"), " ", element("code", path));
  section.append(title, prose("p", operation.summary ?? ""));
  if (operation.description) section.append(prose("p", operation.description, "quiet"));
  const request = jsonSchema(operation.requestBody, api);
  if (request.properties) section.append(element("h3", strings.docs.request), tableOf(request, api, true));
  const data = resolve(jsonSchema(operation.responses[200], api).properties?.data, api);
  if (data.properties) section.append(element("h3", strings.docs.answer), tableOf(data, api));
  return section;
}

// Every route fails in the same shape: told once.
function failures(api) {
  const section = element("section");
  section.append(element("h2", strings.docs.failures), prose("p", api.components.schemas.Problem.description));
  section.append(tableOf(api.components.schemas.Problem, api));
  return section;
}

async function start() {
  fill();
  const description = document.getElementById("description");
  try {
    const api = await (await fetch("/openapi.json")).json();
    description.replaceWith(prose("p", strings.docs.version(api.info.description, api.info.version)));
    const sections = Object.entries(api.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => route(method, path, operation, api)));
    document.getElementById("reference").append(...sections, failures(api));
  } catch (error) {
    description.textContent = strings.docs.failed(error.message);
  }
}

start();
