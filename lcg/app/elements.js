// What the scripts of both tabs share: making elements, and saying a probability.

const element_of = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, '')
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value)
  }
  made.append(...children)
  return made
}
const percent = (p) => `${p > 0 && p < 1 ? Math.min(99, Math.max(1, Math.round(100 * p))) : Math.round(100 * p)} %`
