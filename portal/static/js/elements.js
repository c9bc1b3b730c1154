// Elements made in one call: tag, attributes (none where a value is null or false), children.
export const el = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) =>
  filled(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

function filled(node, attributes = {}, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if ((value ?? false) !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children);
  return node;
}
