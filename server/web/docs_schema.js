// A JSON schema as a person reads it: shaped like the value itself, with what is special about each part behind it.

const STEP = "  ";
const DEPTH = 6;

/** The component that a reference names, or what was given. */
export function resolve(node, root) {
  if (!node?.$ref) return node;
  const found = node.$ref.slice(2).split("/").reduce((place, key) => place?.[key], root);
  return found ?? {};
}

/** Bounds and choices in words. */
function bounds(schema) {
  const parts = [];
  if (schema.minimum !== undefined) parts.push(`≥ ${schema.minimum}`);
  if (schema.exclusiveMinimum !== undefined) parts.push(`> ${schema.exclusiveMinimum}`);
  if (schema.maximum !== undefined) parts.push(`≤ ${schema.maximum}`);
  if (schema.minItems) parts.push(`at least ${schema.minItems}`);
  if (schema.contentEncoding) parts.push(schema.contentEncoding);
  if (schema.default !== undefined) parts.push(`${JSON.stringify(schema.default)} if missing`);
  return parts.join(", ");
}

function simple(schema) {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.format === "binary") return "bytes";
  if (Array.isArray(schema.type)) return schema.type.join(" | ");
  return schema.type ?? "anything";
}

function properties(schema, root, indent, seen) {
  const inner = indent + STEP;
  const lines = Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const part = resolve(property, root);
    const optional = schema.required?.includes(name) ? "" : "?";
    const remark = [bounds(part), part.description].filter(Boolean).join("; ");
    return `${inner}${name}${optional}: ${spell(property, root, inner, seen)}${remark && `  // ${remark}`}`;
  });
  if (typeof schema.additionalProperties === "object") {
    lines.push(`${inner}[name]: ${spell(schema.additionalProperties, root, inner, seen)}`);
  }
  return lines.length ? `{\n${lines.join("\n")}\n${indent}}` : "{ }";
}

/** The schema's text; a component that holds itself is named where it comes round. */
export function spell(schema, root, indent = "", seen = []) {
  if (schema?.$ref) {
    if (seen.includes(schema.$ref) || seen.length > DEPTH) return schema.$ref.split("/").pop();
    return spell(resolve(schema, root), root, indent, [...seen, schema.$ref]);
  }
  if (!schema) return "bytes";
  const choices = schema.properties ? undefined : (schema.anyOf ?? schema.oneOf);
  if (choices) return choices.map((choice) => spell(choice, root, indent, seen)).join(" | ");
  if (schema.type === "array") {
    const items = spell(schema.items ?? {}, root, indent, seen);
    return items.includes(" | ") ? `(${items})[]` : `${items}[]`;
  }
  if (schema.type === "object") return properties(schema, root, indent, seen);
  return simple(schema);
}
