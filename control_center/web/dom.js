/**
 * Elements as plain values, and a renderer that changes in the page only what differs from what it rendered before.
 *
 * Elements are found again by their key (unique among their siblings), or by their place and tag. What a person did to an element (focus, scroll,
 * text in a field, an unfolded detail) stays, because a property is only written when its rendered value changes.
 * Text becomes text nodes, whatever is in it: there is no way from here to HTML.
 */

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "rect", "line", "circle"]);
const LIVE = new Set(["value", "checked", "selected", "indeterminate"]); // properties that people change
const rendered = new WeakMap(); // node -> {key, tag, props}

/** An element. `props`: attributes, `class`, `key`, `style` (an object), `on` (event name -> handler). */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, children };
}

/** Make the children of `parent` what is given; what is null or false is left out. */
export function render(parent, ...children) {
  const focused = document.activeElement;
  reconcile(parent, children);
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}

function reconcile(parent, children) {
  const wanted = [];
  flatten(children, "", wanted);
  const keys = new Set(wanted.map(([key]) => key));
  const known = new Map();
  for (const node of [...parent.childNodes]) {
    const key = rendered.get(node)?.key;
    if (key !== undefined && keys.has(key)) known.set(key, node);
    else node.remove();
  }
  let place = parent.firstChild;
  for (const [key, value] of wanted) {
    const node = patched(known.get(key), key, value);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
}

function flatten(children, prefix, into) {
  children.forEach((child, index) => {
    if (child === null || child === undefined || child === false || child === "") return;
    if (Array.isArray(child)) return flatten(child, `${prefix}${index}.`, into);
    const isElement = typeof child === "object";
    const place = isElement && child.props.key !== undefined ? `key ${child.props.key}` : `${prefix}${index}`;
    into.push([`${place} ${isElement ? child.tag : "text"}`, isElement ? child : String(child)]);
  });
}

function patched(node, key, value) {
  if (typeof value === "string") return text(node, key, value);
  const element = node ?? create(value.tag);
  const before = rendered.get(element)?.props ?? {};
  rendered.set(element, { key, props: value.props });
  if (!value.props.own) reconcile(element, value.children); // before the rest: a select's value needs its options
  for (const name of Object.keys(before)) if (!(name in value.props)) write(element, name, undefined, before[name]);
  for (const [name, given] of Object.entries(value.props)) write(element, name, given, before[name]);
  return element;
}

function text(node, key, value) {
  const found = node ?? document.createTextNode(value);
  rendered.set(found, { key });
  if (found.nodeValue !== value) found.nodeValue = value;
  return found;
}

function create(tag) {
  return SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
}

function write(element, name, given, before) {
  if (name === "key" || name === "own" || name === "on") {
    if (name === "on") listen(element, given);
    return;
  }
  if (name === "style") return writeStyle(element, given ?? {}, before ?? {});
  if (given === before) return;
  if (LIVE.has(name)) element[name] = given ?? "";
  else if (given === undefined || given === null || given === false) element.removeAttribute(name);
  else element.setAttribute(name, given === true ? "" : given);
}

function writeStyle(element, given, before) {
  for (const name of Object.keys(before)) if (!(name in given)) element.style.removeProperty(name);
  for (const [name, value] of Object.entries(given)) {
    if (before[name] !== value) element.style.setProperty(name, value);
  }
}

const heard = new WeakMap(); // element -> event name -> handler

function listen(element, handlers) {
  const known = heard.get(element);
  for (const name of Object.keys(handlers ?? {})) {
    if (!known || !(name in known.all)) element.addEventListener(name, dispatch);
  }
  heard.set(element, { all: { ...known?.all, ...handlers }, now: handlers ?? {} });
}

function dispatch(event) {
  const handler = heard.get(event.currentTarget)?.now[event.type];
  if (handler) handler(event);
}
