// The map of the gallery: points that can be hovered, clicked and walked with the arrow keys.

const $ = (selector) => element.querySelector(selector)
const plot = $('.plot'), tip = $('.tip'), SVG = 'http://www.w3.org/2000/svg'
const COLOURS = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#7f7fd5']  // told apart by the colour-blind
const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]
const SHAPES = [  // within -1 to 1
  'M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z', 'M0-1.15L1.1 .8H-1.1z', 'M-.9-.9H.9V.9H-.9z', 'M0-1.25L1.25 0 0 1.25-1.25 0z', 'M0 1.15L1.1-.8H-1.1z',
  'M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4z', 'M-.6-1.1L0-.5 .6-1.1 1.1-.6 .5 0 1.1 .6 .6 1.1 0 .5-.6 1.1-1.1 .6-.5 0-1.1-.6z', 'M-.5-1H.5L1.1 0 .5 1H-.5L-1.1 0z',
]
let map = null, marks = [], hits = null, chosen = null, hovered = null, under_way = null, waiting = {}, ticket = 0, timer = 0, retry = 0
const images = new Map()

// --- requests: one under way, the newest of each kind waits ---

function send(request) {
  waiting[request.do] = request
  next()
}
function next() {
  const kind = ['map', 'filter', 'choose', 'image'].find((one) => waiting[one])
  if (under_way || !kind) return
  under_way = {...waiting[kind], ticket: ++ticket}
  delete waiting[kind]
  timer = setTimeout(() => answered({error: 'The server did not answer; try again, or reload the page.'}), 60000)
  trigger('submit', under_way)
}
function answered(answer) {
  clearTimeout(timer)
  under_way = null
  $('.error').hidden = !answer.error
  $('.error').textContent = answer.error ?? ''
  if (answer.map) draw(answer.map)
  if (answer.found) found(answer.found)
  if (answer.image) { images.set(answer.image.number, answer.image.src); show_tip() }
  if (answer.chosen) choose(answer.chosen)
  next()
}
watch('value', () => { if (props.value?.ticket === under_way?.ticket) answered(props.value) })

// --- the map ---

const colour = (value) => {
  if (value === null) return 'none'
  if (map.values.length) return COLOURS[value % COLOURS.length]
  const place = (SCALE.length - 1) * Math.min(1, Math.max(0, (value - map.low) / (map.high - map.low || 1)))
  const k = Math.min(SCALE.length - 2, Math.floor(place))
  return `rgb(${SCALE[k].map((from, c) => Math.round(from + (place - k) * (SCALE[k + 1][c] - from)))})`
}
const shape = (value) => SHAPES[value === null || !map.values.length ? 0 : value % SHAPES.length]
const symbol = (value, size = 1) => {
  const made = document.createElementNS(SVG, 'path')
  made.setAttribute('d', shape(value))
  made.setAttribute('fill', colour(value))
  made.setAttribute('class', value === null ? 'point unknown' : 'point')
  return made
}
const place = (row) => [40 + 920 * (map.xy[2 * row] + 1) / 2, 40 + 920 * (1 - map.xy[2 * row + 1]) / 2]

function draw(fresh) {
  map = fresh
  const size = 1000 / plot.clientWidth * (plot.clientWidth < 480 ? 3.6 : 5)
  marks = map.colours.map((value, row) => {
    const mark = symbol(value), [x, y] = place(row)
    mark.setAttribute('transform', `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size.toFixed(2)})`)
    return mark
  })
  const ring = document.createElementNS(SVG, 'circle')
  ring.setAttribute('class', 'ring')
  ring.setAttribute('r', 2.2 * size)
  plot.replaceChildren(...marks, ring)
  plot.setAttribute('aria-label', `Map of ${marks.length} images of the gallery. Arrow keys go to the next image, Enter edits it.`)
  $('.number').max = marks.length - 1
  legend()
  highlight()
  ring_at(chosen)
  clearTimeout(retry)
  if (!map.ready) retry = setTimeout(ask_map, 1500)
}

function legend() {
  const names = [...map.values.keys()], count = (value) => map.colours.filter((one) => one === value).length
  const row = (value, text, amount) => {
    const icon = document.createElementNS(SVG, 'svg')
    icon.setAttribute('viewBox', '-1.6 -1.6 3.2 3.2')
    icon.setAttribute('aria-hidden', 'true')
    icon.append(symbol(value))
    return element_of('li', {}, icon, element_of('span', {}, text), element_of('span', {class: 'amount'}, amount))
  }
  const rows = map.values.length ? names.map((value) => row(value, map.values[value], `${count(value)}`))
    : map.attribute ? [map.low, map.high].map((value) => row(value, value.toFixed(2), '')) : [row(0, 'images', `${marks.length}`)]
  const unknown = count(null)
  if (unknown) rows.push(row(null, 'does not apply, or not known', `${unknown}`))
  $('.legend-title').textContent = map.title
  $('.legend').replaceChildren(...rows)
  $('.verdict').textContent = map.verdict
  $('.about').textContent = map.ready ? map.about : `${map.about} t-SNE is being computed; this is PCA meanwhile.`
}

function highlight() {
  plot.classList.toggle('filtered', hits !== null)
  marks.forEach((mark, row) => mark.classList.toggle('hit', hits !== null && hits.has(row)))
  if (hits !== null) for (const row of hits) plot.insertBefore(marks[row], plot.lastChild)  // on top of the others
}
function found(answer) {
  hits = answer.rows === null ? null : new Set(answer.rows)
  $('.found').textContent = answer.text
  $('.found').classList.toggle('wrong', answer.problem)
  $('.filter').setAttribute('aria-invalid', answer.problem)
  highlight()
}

function ring_at(row) {
  const ring = $('.ring')
  if (!ring) return
  ring.style.display = row === null ? 'none' : ''
  if (row === null) return
  const [x, y] = place(row)
  ring.setAttribute('cx', x)
  ring.setAttribute('cy', y)
}

// --- hovering and choosing ---

function nearest(event) {
  const box = plot.getBoundingClientRect(), scale = 1000 / box.width
  const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale
  let best = null, least = (24 * scale) ** 2
  marks.forEach((mark, row) => {
    if (hits !== null && !hits.has(row)) return
    const [a, b] = place(row), away = (a - x) ** 2 + (b - y) ** 2
    if (away < least) { best = row; least = away }
  })
  return best
}
function show_tip() {
  tip.hidden = hovered === null || !images.has(hovered)
  if (tip.hidden) return
  const [x, y] = place(hovered).map((one) => one * plot.clientWidth / 1000)
  tip.firstChild.src = images.get(hovered)
  tip.lastChild.textContent = `image ${hovered}`
  tip.style.left = `${Math.max(0, Math.min(x + 12, plot.clientWidth - 96))}px`
  tip.style.top = `${y > 140 ? y - 136 : y + 16}px`
}
plot.addEventListener('pointermove', (event) => {
  if (event.pointerType !== 'mouse' || !map) return
  const row = nearest(event)
  if (row === hovered) return
  hovered = row
  show_tip()
  if (row !== null && !images.has(row)) send({do: 'image', number: row})
})
plot.addEventListener('pointerleave', () => { hovered = null; show_tip() })
plot.addEventListener('click', (event) => {
  const row = map && nearest(event)
  if (row !== null) pick(row)
})

let settle = 0
function pick(row, wait = 0) {
  chosen = row
  ring_at(row)
  $('.number').value = row
  $('.edit').disabled = true
  clearTimeout(settle)
  settle = setTimeout(() => send({do: 'choose', number: row}), wait)
}
let then_edit = false
function choose(one) {
  if (one.number !== chosen) return
  const picture = $('.picture')
  picture.src = one.src
  picture.alt = one.alt
  picture.hidden = false
  picture.classList.toggle('crisp', one.width < 200)
  $('.none-yet').hidden = true
  $('.edit').disabled = false
  $('.labels').replaceChildren(...one.labels.flatMap(([name, value]) => [element_of('dt', {}, name), element_of('dd', {}, value)]))
  $('.said').textContent = `Image ${one.number}: ${one.labels.map((pair) => pair.join(' ')).join(', ')}.`
  if (then_edit) { then_edit = false; trigger('select', {}) }
}
$('.edit').addEventListener('click', () => trigger('select', {}))
$('.number').addEventListener('change', (event) => {
  const row = Math.round(+event.target.value)
  if (map && row >= 0 && row < marks.length) pick(row)
  else answered_locally(`There are images 0 to ${marks.length - 1}.`)
})
function answered_locally(problem) {
  $('.error').hidden = false
  $('.error').textContent = problem
}

const ARROWS = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}
plot.addEventListener('keydown', (event) => {
  if (!map) return
  if (event.key === 'Enter' && chosen !== null) {
    event.preventDefault()
    if ($('.edit').disabled) then_edit = true
    else trigger('select', {})
  }
  const way = ARROWS[event.key]
  if (!way || event.ctrlKey || event.metaKey || event.altKey) return
  event.preventDefault()
  const rows = hits === null ? [...marks.keys()] : [...hits]
  if (chosen === null) { if (rows.length) pick(rows[0]); return }
  const [x, y] = place(chosen)
  let best = null, least = Infinity
  for (const row of rows) {
    const [a, b] = place(row), along = (a - x) * way[0] + (b - y) * way[1], across = Math.abs((a - x) * way[1]) + Math.abs((b - y) * way[0])
    if (row === chosen || along <= 0 || across > along) continue
    if (along + 2 * across < least) { best = row; least = along + 2 * across }
  }
  if (best !== null) pick(best, 150)
})

// --- what is shown ---

const ask_map = () => send({do: 'map', method: $('.method').value, attribute: $('.colour').value || null})
$('.colour').append(element_of('option', {value: ''}, 'nothing'), ...props.attributes.map((one) => element_of('option', {value: one.name}, one.title)))
$('.colour').value = props.attributes[0]?.name ?? ''
$('.colour').addEventListener('change', ask_map)
$('.method').addEventListener('change', ask_map)
let typing = 0
$('.filter').addEventListener('input', (event) => { clearTimeout(typing); typing = setTimeout(() => send({do: 'filter', text: event.target.value}), 250) })
new IntersectionObserver((seen, observer) => {
  if (!seen.some((one) => one.isIntersecting)) return
  observer.disconnect()
  ask_map()
}).observe($('.explore'))
