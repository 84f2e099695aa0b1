// The Generate tab: a formula box that knows the language, controls that write the formula, and what came of it.
//
// What is typed is read by the server (`server.read`, `server.trust`, `server.describe`, `server.write`), a little after
// the last key; of several answers only that to the newest question counts. Images are asked for with an event, `submit`,
// and come back as the component's value, some more with every part.

const AFTER_A_KEY = 120, AFTER_A_PAUSE = 350, PATIENCE = 120000
const $ = (selector) => element.querySelector(selector)
const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== false) made.setAttribute(name, value === true ? '' : value)
  made.append(...children)
  return made
}
const formula = $('#formula'), list = $('#formula-list'), says = $('#formula-says')
let newest = 0, asked = {}, trusted = 0, keyed = 0

// --- the formula: read while it is typed ---

async function read(open) {
  const ticket = ++newest, text = formula.value
  clearTimeout(trusted)
  let answer
  try { answer = await server.read({text, caret: formula.selectionStart ?? text.length}) } catch { return told({problem: 'The server does not answer; is it still running?'}) }
  if (ticket !== newest) return
  const begun = !answer.ok && answer.suggestions.some((one) => one.kind !== 'operator' && one.start <= answer.start && answer.end <= one.end + 1)
  const helps = answer.suggestions.some((one) => one.kind !== 'operator') && (answer.ok || begun)
  told(answer, begun)
  controls_show(answer.asked, answer.ok)
  suggest(open === 'asked' || (open && helps) ? answer.suggestions : [])
  if (answer.ok && answer.canonical) trusted = setTimeout(() => trust(ticket, answer.canonical), AFTER_A_PAUSE)
}

async function trust(ticket, text) {
  const answer = await server.trust({text}).catch(() => null)
  if (answer && ticket === newest) says.replaceChildren(...evidence(answer))
}

const evidence = (answer) => answer.problem ? [make('p', {class: 'wrong'}, answer.problem)]
  : [make('p', {class: answer.can_sample ? 'verdict' : 'wrong'}, answer.verdict), make('p', {class: 'evidence'}, answer.evidence)]

function told(answer, begun = false) {
  const unfinished = document.activeElement === formula && (begun || answer.start >= formula.value.trimEnd().length)
  formula.setAttribute('aria-invalid', String(Boolean(answer.problem) && !unfinished))
  if (!answer.problem) { if (!answer.canonical) says.replaceChildren(); return }
  if (unfinished) return says.replaceChildren(make('p', {class: 'evidence'}, `Not finished: ${answer.problem}`))
  const parts = [make('p', {class: 'wrong'}, answer.problem)]
  if (answer.end > answer.start) {
    const text = formula.value.padEnd(answer.end), wrong = text.slice(answer.start, answer.end)
    const from = Math.max(0, answer.start - 32)
    const excerpt = make('p', {class: 'excerpt'}, (from ? '…' : '') + text.slice(from, answer.start), make('mark', {}, wrong.trim() ? wrong : '\u00a0'), text.slice(answer.end, answer.end + 32))
    excerpt.append(make('span', {class: 'evidence'}, `   column ${answer.start + 1}`))
    parts.push(excerpt)
  }
  if (answer.nearest) {
    const fix = make('button', {type: 'button', class: 'quiet'}, `Write ${answer.nearest}`)
    fix.addEventListener('click', () => put(answer.nearest, answer.start, answer.end))
    parts.push(make('p', {}, fix))
  }
  says.replaceChildren(...parts)
}

function put(text, start, end) {
  formula.value = formula.value.slice(0, start) + text + formula.value.slice(end)
  formula.focus()
  formula.setSelectionRange(start + text.length, start + text.length)
  read(false)
}

// --- completion: a listbox under the box; arrows choose, Enter takes, Escape closes ---

let suggestions = [], active = -1

function suggest(found) {
  const before = suggestions[active]?.text
  suggestions = document.activeElement === formula ? found : []
  list.replaceChildren(...suggestions.map((one, number) => {
    const option = make('li', {id: `formula-option-${number}`, role: 'option', 'aria-selected': 'false'}, make('code', {}, one.text), make('span', {}, one.about))
    option.addEventListener('mousedown', (event) => { event.preventDefault(); take(number) })
    return option
  }))
  list.hidden = !suggestions.length
  formula.setAttribute('aria-expanded', String(!list.hidden))
  highlight(suggestions.findIndex((one) => one.text === before))
}

function highlight(number) {
  active = number
  ;[...list.children].forEach((option, place) => option.setAttribute('aria-selected', String(place === number)))
  if (number < 0) return formula.removeAttribute('aria-activedescendant')
  formula.setAttribute('aria-activedescendant', `formula-option-${number}`)
  list.children[number].scrollIntoView({block: 'nearest'})
}

function take(number) {
  const one = suggestions[number]
  suggest([])
  put(one.text, one.start, one.end)
}

formula.addEventListener('keydown', (event) => {
  const shown = suggestions.length
  if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
    event.preventDefault()
    if (!shown) return read('asked')
    const step = event.key === 'ArrowDown' ? 1 : -1
    highlight((active + 1 + step + shown + 1) % (shown + 1) - 1)  // -1, none, is a place of its own
  } else if (event.key === 'Enter' && active >= 0) {
    event.preventDefault()
    take(active)
  } else if (event.key === 'Escape' && shown) {
    event.preventDefault()
    suggest([])
  }
})
formula.addEventListener('input', () => { newest++; clearTimeout(keyed); keyed = setTimeout(() => read(true), AFTER_A_KEY) })
formula.addEventListener('blur', () => { suggest([]); if (formula.value.trim()) read(false) })

for (const example of props.examples) {
  const button = make('button', {type: 'button'}, example)
  button.addEventListener('click', () => { formula.value = example; read(false) })
  $('.examples').append(button)
}

// --- plain English ---

const english = $('#english'), understood = $('#english-says'), use = $('.use')
let described = 0, meant = null

async function describe() {
  const ticket = ++described
  if (!english.value.trim()) { meant = null; use.disabled = true; return understood.replaceChildren() }
  const answer = await server.describe({text: english.value}).catch(() => null)
  if (!answer || ticket !== described) return
  meant = answer.formula
  use.disabled = meant === null
  understood.replaceChildren(
    ...(meant === null ? [make('p', {class: 'wrong'}, answer.problem)] : [make('p', {class: 'reading'}, meant)]),
    ...answer.notes.map((note) => make('p', {class: 'evidence'}, note)))
}
const adopt = () => { if (meant !== null) { formula.value = meant; read(false) } }
english.addEventListener('input', () => { clearTimeout(keyed); keyed = setTimeout(describe, AFTER_A_KEY) })
english.addEventListener('keydown', async (event) => { if (event.key === 'Enter') { event.preventDefault(); await describe(); adopt() } })
use.addEventListener('click', adopt)

// --- controls: they write the formula, and show what it says ---

const shows = {}
const stays = (value) => value === undefined || value === null

async function wish(name, value) {
  if (stays(value)) delete asked[name]
  else asked[name] = value
  const ticket = ++newest
  const answer = await server.write({asked}).catch(() => ({problem: 'The server does not answer; is it still running?'}))
  if (ticket !== newest) return
  if (answer.problem) return told(answer)
  formula.value = answer.text
  read(false)
}

function toggle({name, title}) {
  const radios = {}
  const segments = [['any', null], ['yes', true], ['no', false]].map(([text, value]) => {
    const radio = radios[value] = make('input', {type: 'radio', name: `wish-${name}`, value: text, 'aria-label': `${title}: ${text}`})
    radio.addEventListener('change', () => wish(name, value))
    return make('label', {}, radio, make('span', {'aria-hidden': 'true'}, text))
  })
  shows[name] = () => { radios[asked[name] ?? null].checked = true }
  return make('div', {class: 'row', role: 'radiogroup', 'aria-label': title, 'data-name': name}, make('span', {class: 'legend', 'aria-hidden': 'true'}, title), make('div', {class: 'segments'}, ...segments))
}

function choice({name, title, values, ordered, about}) {
  const own = values.map((value) => [value, value])
  if (ordered) own.push(...values.slice(1).map((value) => [`at least ${value}`, ['>=', value]]), ...values.slice(0, -1).map((value) => [`at most ${value}`, ['<=', value]]))
  const select = make('select', {id: `wish-${name}`}, make('option', {value: 'null'}, 'any'), ...own.map(([text, value]) => make('option', {value: JSON.stringify(value)}, text)))
  select.addEventListener('change', () => wish(name, JSON.parse(select.value)))
  shows[name] = () => {
    select.querySelector('.several')?.remove()
    const value = JSON.stringify(asked[name] ?? null)
    if (![...select.options].some((option) => option.value === value)) select.append(make('option', {value, class: 'several'}, asked[name].join(' or ')))
    select.value = value
  }
  return make('div', {class: 'row', 'data-name': name}, make('label', {for: `wish-${name}`}, title), select, ...(about ? [make('span', {class: 'about'}, about)] : []))
}

function number({name, title, low, high, about}) {
  const side = make('select', {'aria-label': `${title}: above or below`}, ...[['any', ''], ['above', '>'], ['below', '<']].map(([text, value]) => make('option', {value}, text)))
  const bound = make('input', {type: 'number', id: `wish-${name}`, step: 'any', min: low, max: high, value: ((low + high) / 2).toPrecision(3)})
  const changed = () => wish(name, side.value ? [side.value, +bound.value] : null)
  side.addEventListener('change', changed)
  bound.addEventListener('change', changed)
  shows[name] = () => {
    side.value = asked[name]?.[0] ?? ''
    if (asked[name]) bound.value = asked[name][1]
    bound.disabled = !asked[name]
  }
  return make('div', {class: 'row', 'data-name': name}, make('label', {for: `wish-${name}`}, title), make('div', {class: 'pair'}, side, bound), ...(about ? [make('span', {class: 'about'}, about)] : []))
}

const finer = props.controls.filter((one) => one.detail || one.kind !== 'toggle')
for (const one of props.controls) {
  const row = {toggle, choice, number}[one.kind](one)
  $(finer.includes(one) ? '.finer .rows' : '.toggles').append(row)
}
$('.finer').hidden = !finer.length
$('.finer').open = finer.length === props.controls.length
$('.clear').addEventListener('click', () => { formula.value = ''; asked = {}; read(false) })

function controls_show(state, ok) {
  if (ok) $('.stale').hidden = state !== null
  if (state === null) return
  asked = {...state}
  for (const one of props.controls) {
    shows[one.name]()
    element.querySelector(`.row[data-name="${one.name}"]`).classList.toggle('set', !stays(asked[one.name]))
  }
  const set = finer.filter((one) => !stays(asked[one.name])).length
  $('.finer .count').textContent = set ? `${set} set` : `${finer.length}`
}

// --- images ---

const count = $('.count-wanted'), seed = $('.seed'), go = $('.primary'), gallery = $('.gallery'), status = $('.status'), problem = $('.problem')
let under_way = 0, last = 0, timer = 0, view = null
count.value = props.count
count.max = props.most
seed.value = 0

function generate() {
  suggest([])
  clearTimeout(keyed)
  read(false)
  last = under_way = Date.now()
  view = null
  problem.hidden = true
  $('.empty').hidden = true
  gallery.replaceChildren(...Array.from({length: Math.min(+count.value || 1, props.most)}, () => make('li', {class: 'pending'}, make('figure'))))
  ready(false)
  if ($('.outcome').getBoundingClientRect().top > 0.75 * innerHeight) $('.outcome').scrollIntoView()
  status.textContent = 'Drawing …'
  clearTimeout(timer)
  timer = setTimeout(() => shown({ticket: last, problem: 'The server did not answer within two minutes; try fewer images.', done: true}), PATIENCE)
  trigger('submit', {ticket: last, formula: formula.value, n: +count.value, seed: +seed.value})
}

function ready(yes) {
  go.disabled = $('.another').disabled = !yes
  $('.sheet').disabled = $('.record').disabled = !yes || !view?.images?.length
  gallery.setAttribute('aria-busy', String(!yes))
}

function shown(answer) {
  if (answer.ticket !== under_way) return
  if (answer.problem) {
    problem.textContent = answer.problem
    problem.hidden = false
    gallery.replaceChildren()
    status.textContent = ''
  } else {
    view = answer
    const there = gallery.querySelectorAll('li:not(.pending)').length
    answer.images.slice(there).forEach((image, after) => {
      const item = card(image, there + after)
      const waits = gallery.querySelector('.pending')
      if (waits) waits.replaceWith(item)
      else gallery.append(item)
    })
    status.replaceChildren(...(answer.done ? summary(answer) : [`Drawing … ${answer.images.length} of ${answer.wanted}`]))
  }
  if (answer.done) {
    clearTimeout(timer)
    under_way = 0
    gallery.querySelectorAll('.pending').forEach((item) => item.remove())
    ready(true)
  }
}

const summary = (answer) => [...(answer.satisfied ? [make('strong', {}, answer.satisfied)] : []), [answer.summary, ...answer.notes].join(' ')]

function card(image, place) {
  const said = [image.caption, image.probability, image.fails].filter(Boolean).join(', ')
  const picture = make('img', {src: image.src, alt: said, width: image.width, height: image.height, class: image.width < 200 ? 'crisp' : null})
  const caption = make('figcaption', {}, make('span', {}, image.caption))
  if (image.probability) caption.append(make('span', {title: 'probability that the image satisfies the formula, as the classifier reads it'}, image.probability))
  if (image.fails) caption.append(make('span', {class: 'fails'}, image.fails))
  const edit = make('button', {type: 'button', 'aria-label': `Edit this one: ${image.caption}`}, 'Edit this one')
  edit.addEventListener('click', () => trigger('select', {number: place, ticket: last}))
  return make('li', {}, make('figure', {}, picture, caption, edit))
}

$('.draft').addEventListener('submit', (event) => { event.preventDefault(); if (!go.disabled) generate() })
$('.another').addEventListener('click', () => { seed.value = Math.floor(Math.random() * 2 ** 32); generate() })
watch('value', () => { if (props.value) shown(props.value) })

// --- what is taken home, made here from what is shown ---

function save(blob, name) {
  const link = make('a', {href: URL.createObjectURL(blob), download: name})
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10000)
}

$('.record').addEventListener('click', () => save(new Blob([JSON.stringify(view.record, null, 2)], {type: 'application/json'}), 'lcg-samples.json'))

$('.sheet').addEventListener('click', () => {
  const pictures = [...gallery.querySelectorAll('img')], {width, height} = view.images[0]
  const scale = Math.max(1, Math.round(128 / width)), w = width * scale, h = height * scale, gap = 12, text = 34
  const columns = Math.min(pictures.length, Math.max(1, Math.round(Math.sqrt(pictures.length * 1.6)))), rows = Math.ceil(pictures.length / columns)
  const canvas = make('canvas', {width: columns * (w + gap) + gap, height: rows * (h + text + gap) + gap + 28}), pen = canvas.getContext('2d')
  pen.fillStyle = '#ffffff'
  pen.fillRect(0, 0, canvas.width, canvas.height)
  pen.imageSmoothingEnabled = false
  pen.fillStyle = '#1d2125'
  pen.font = '14px sans-serif'
  pen.fillText(view.record.formula ?? 'samples of the prior', gap, gap + 14, canvas.width - 2 * gap)
  pictures.forEach((picture, place) => {
    const x = gap + (place % columns) * (w + gap), y = gap + 28 + Math.floor(place / columns) * (h + text + gap), image = view.images[place]
    pen.drawImage(picture, x, y, w, h)
    pen.fillStyle = '#565d65'
    pen.font = '12px sans-serif'
    pen.fillText([image.caption, image.probability].filter(Boolean).join('   '), x, y + h + 16, w)
    if (image.fails) { pen.fillStyle = '#a3341f'; pen.fillText(image.fails, x, y + h + 31, w) }
  })
  canvas.toBlob((blob) => save(blob, 'lcg-samples.png'), 'image/png')
})

controls_show({}, true)
